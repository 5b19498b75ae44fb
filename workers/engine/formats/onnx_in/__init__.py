"""ONNX files: our own importer. The graph is interpreted by torch's operators and traced by torch.export."""
