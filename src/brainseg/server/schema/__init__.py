"""What the API takes and answers, as pydantic models, and the OpenAPI document that is made of them."""
