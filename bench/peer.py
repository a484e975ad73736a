"""Quantises a model with Microsoft's onnxruntime.quantization and checks files with ONNX's own checker.

Usage: peer.py quantize MODEL INPUT CALIB.raw N OUT_DIR   static QDQ of the model, a file per setting, on N inputs (float32)
       peer.py check FILE...                              checker and strict shape inference of every file
"""
import os
import sys

import numpy as np
import onnx
from onnx import shape_inference


def check(files):
    for path in files:
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        print(f"accepted {os.path.basename(path)}: opset {model.opset_import[0].version}, {len(model.graph.node)} nodes")


def quantize(model, name, raw, count, out):
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    shape = [d.dim_value for d in onnx.load(model).graph.input[0].type.tensor_type.shape.dim]
    data = np.fromfile(raw, dtype=np.float32).reshape([count] + shape)

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rows = iter(data)

        def get_next(self):
            row = next(self.rows, None)
            return None if row is None else {name: row}

    prepared = os.path.join(out, "prepared.onnx")
    quant_pre_process(model, prepared)
    settings = {  # per channel, activations, method
        "per-channel percentile uint8": (True, QuantType.QUInt8, CalibrationMethod.Percentile, {"CalibPercentile": 99.999}),
        "per-channel percentile int8 symmetric": (True, QuantType.QInt8, CalibrationMethod.Percentile, {"CalibPercentile": 99.999, "ActivationSymmetric": True, "WeightSymmetric": True}),
        "per-channel minmax uint8": (True, QuantType.QUInt8, CalibrationMethod.MinMax, {}),
        "per-tensor percentile uint8": (False, QuantType.QUInt8, CalibrationMethod.Percentile, {"CalibPercentile": 99.999}),
    }
    for label, (per_channel, activations, method, extra) in settings.items():
        path = os.path.join(out, "peer " + label + ".onnx")
        quantize_static(prepared, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel, activation_type=activations,
                        weight_type=QuantType.QInt8, calibrate_method=method, extra_options=extra)
        print(f"peer: wrote {os.path.basename(path)}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[1] == "check":
        check(sys.argv[2:])
    elif len(sys.argv) == 7 and sys.argv[1] == "quantize":
        quantize(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), sys.argv[6])
    else:
        sys.exit(__doc__)
