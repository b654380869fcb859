"""The use cases as readable pipelines: Request, Close, monitor."""
