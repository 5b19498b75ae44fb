"""The messages of an ONNX file, by the numbers of its format (onnx.proto, IR version 11)."""

from workers.engine.admit.protobuf import BYTES, FIXED32, VARINT, Field, Schema

MAX_NODES = 10_000
MAX_CONSTANTS = 20_000
MAX_PORTS = 1024
"""Inputs or outputs of one node, or outputs of the graph."""

_METADATA = Field("metadata_props", BYTES, many=True)

MODEL: Schema = {
    1: Field("ir_version", VARINT),
    2: Field("producer_name", BYTES),
    3: Field("producer_version", BYTES),
    4: Field("domain", BYTES),
    5: Field("model_version", VARINT),
    6: Field("doc_string", BYTES),
    7: Field("graph", BYTES),
    8: Field("opset_import", BYTES, many=True),
    14: _METADATA,
    20: Field("training_info", BYTES, many=True),
    25: Field("functions", BYTES, many=True),
    26: Field("configuration", BYTES, many=True),
}
GRAPH: Schema = {
    1: Field("node", BYTES, many=True, most=MAX_NODES),
    2: Field("name", BYTES),
    5: Field("initializer", BYTES, many=True, most=MAX_CONSTANTS),
    10: Field("doc_string", BYTES),
    11: Field("input", BYTES, many=True, most=MAX_PORTS),
    12: Field("output", BYTES, many=True, most=MAX_PORTS),
    13: Field("value_info", BYTES, many=True),
    14: Field("quantization_annotation", BYTES, many=True),
    15: Field("sparse_initializer", BYTES, many=True),
    16: _METADATA,
}
NODE: Schema = {
    1: Field("input", BYTES, many=True, most=MAX_PORTS),
    2: Field("output", BYTES, many=True, most=MAX_PORTS),
    3: Field("name", BYTES),
    4: Field("op_type", BYTES),
    5: Field("attribute", BYTES, many=True),
    6: Field("doc_string", BYTES),
    7: Field("domain", BYTES),
    8: Field("overload", BYTES),
    9: _METADATA,
    10: Field("device_configurations", BYTES, many=True),
}
ATTRIBUTE: Schema = {
    1: Field("name", BYTES),
    2: Field("f", FIXED32),
    3: Field("i", VARINT),
    4: Field("s", BYTES),
    5: Field("t", BYTES),
    6: Field("g", BYTES),
    7: Field("floats", FIXED32, many=True, packed=True),
    8: Field("ints", VARINT, many=True, packed=True),
    9: Field("strings", BYTES, many=True),
    10: Field("tensors", BYTES, many=True),
    11: Field("graphs", BYTES, many=True),
    13: Field("doc_string", BYTES),
    14: Field("tp", BYTES),
    15: Field("type_protos", BYTES, many=True),
    20: Field("type", VARINT),
    21: Field("ref_attr_name", BYTES),
    22: Field("sparse_tensor", BYTES),
    23: Field("sparse_tensors", BYTES, many=True),
}
VALUE: Schema = {
    1: Field("name", BYTES),
    2: Field("type", BYTES),
    3: Field("doc_string", BYTES),
    4: _METADATA,
}
TYPE: Schema = {
    1: Field("tensor_type", BYTES),
    4: Field("sequence_type", BYTES),
    5: Field("map_type", BYTES),
    6: Field("denotation", BYTES),
    7: Field("opaque_type", BYTES),
    8: Field("sparse_tensor_type", BYTES),
    9: Field("optional_type", BYTES),
}
TENSOR_TYPE: Schema = {1: Field("elem_type", VARINT), 2: Field("shape", BYTES)}
SHAPE: Schema = {1: Field("dim", BYTES, many=True)}
DIMENSION: Schema = {
    1: Field("dim_value", VARINT),
    2: Field("dim_param", BYTES),
    3: Field("denotation", BYTES),
}
OPSET: Schema = {1: Field("domain", BYTES), 2: Field("version", VARINT)}
