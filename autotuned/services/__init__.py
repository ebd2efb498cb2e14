"""The use cases. They own all mutable state and carry out what policy decides."""
