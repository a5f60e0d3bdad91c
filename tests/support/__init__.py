"""What several test files share: toy data, stand-ins for models and servers."""
