"""Runs one model of a device through Triton's own HTTP client: metadata, then an inference with binary tensors and one with
JSON, whose outputs must be equal.

Usage: triton.py HOST:PORT MODEL CA CERTIFICATE KEY
"""
import ssl
import sys

import numpy as np
import tritonclient.http as triton

address, model, ca, certificate, key = sys.argv[1:]


def context():
    c = ssl.create_default_context(cafile=ca)
    c.load_cert_chain(certificate, key)
    return c


client = triton.InferenceServerClient(address, ssl=True, ssl_context_factory=context, network_timeout=60, connection_timeout=60)
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
meta = client.get_model_metadata(model)
answers = {}
for binary in (True, False):
    inputs = []
    for i, t in enumerate(meta["inputs"]):
        values = np.random.default_rng(i).random(t["shape"], dtype=np.float32) * 255
        tensor = triton.InferInput(t["name"], t["shape"], t["datatype"])
        tensor.set_data_from_numpy(values, binary_data=binary)
        inputs.append(tensor)
    outputs = [triton.InferRequestedOutput(t["name"], binary_data=binary) for t in meta["outputs"]]
    r = client.infer(model, inputs, outputs=outputs)
    answers[binary] = {t["name"]: r.as_numpy(t["name"]) for t in meta["outputs"]}
for name, values in answers[True].items():
    np.testing.assert_allclose(values, answers[False][name], rtol=1e-6)
try:
    client.get_model_metadata("no.model")
except triton.InferenceServerException as e:
    assert "no such stage" in str(e), e
else:
    raise AssertionError("a model that does not exist was found")
print(f"tritonclient {triton.__version__ if hasattr(triton, '__version__') else ''}: {model}, {len(answers[True])} outputs equal in binary and JSON")
