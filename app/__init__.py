"""The API process: HTTP, rules, queries. It never imports torch, onnx or the workers."""
