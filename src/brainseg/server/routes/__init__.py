"""The addresses of the server, a module for those that belong together; each adds its own to the application."""
