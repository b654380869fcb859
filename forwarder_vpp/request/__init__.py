"""The use cases as readable pipelines: request, close, adopt."""
