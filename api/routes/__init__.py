"""The routes, one module per noun. Handlers are thin: check, call, put on the wire."""
