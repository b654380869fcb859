"""The protobuf wire of NSM: .proto files, generated code, codec to the model, table of RPC methods."""
