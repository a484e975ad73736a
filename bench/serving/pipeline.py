"""The face pipeline of the bundle that is measured (YuNet, alignment by five points, embedding with its mirror image), as a
Python service would write it with OpenCV, NumPy and onnxruntime: vectorised, nothing copied that need not be."""

import json
import os

import cv2
import numpy as np
import onnxruntime as ort

cv2.setNumThreads(1)

# Five points of a face of 112 x 112 pixels, as ArcFace and its successors align them.
POINTS = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32)
SIDE, FACE = 320, 112
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
SCALE = 1 / np.array([58.395, 57.12, 57.375], np.float32)
SCORE, OVERLAP, MIN_SIDE, MOST_FACES = 0.6, 0.3, 24, 8


class Pipeline:
    def __init__(self, detector, embedder, threads):
        """threads: of each session; 0 leaves onnxruntime's default."""
        options = ort.SessionOptions()
        if threads:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.detect = ort.InferenceSession(detector, options, providers=["CPUExecutionProvider"])
        self.embed = ort.InferenceSession(embedder, options, providers=["CPUExecutionProvider"])
        self.embed_input = self.embed.get_inputs()[0].name
        self.outputs = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)]
        cells = []
        for stride in (8, 16, 32):
            n = SIDE // stride
            y, x = np.mgrid[0:n, 0:n]
            cells.append(np.stack([x.ravel(), y.ravel(), np.full(n * n, stride)], 1))
        cells = np.concatenate(cells).astype(np.float32)
        self.cell, self.stride = cells[:, :2], cells[:, 2:]

    def faces(self, picture):
        """Boxes and points of the faces of a BGR picture, the largest first."""
        h, w = picture.shape[:2]
        scale = SIDE / max(h, w)
        nw, nh = max(1, round(w * scale)), max(1, round(h * scale))
        canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
        canvas[:nh, :nw] = cv2.resize(picture, (nw, nh), interpolation=cv2.INTER_LINEAR)
        out = self.detect.run(self.outputs, {"input": cv2.dnn.blobFromImage(canvas)})
        cls, obj, box, kps = (np.concatenate(out[i : i + 3], 1)[0] for i in range(0, 12, 3))
        score = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
        keep = np.flatnonzero(score >= SCORE)
        if not len(keep):
            return []
        cell, stride, score, box = self.cell[keep], self.stride[keep], score[keep], box[keep]
        centre = (cell + box[:, :2]) * stride
        size = np.exp(box[:, 2:]) * stride
        points = ((kps[keep].reshape(-1, 5, 2) + cell[:, None]) * stride[:, None]) / scale
        boxes = np.concatenate([centre - size / 2, size], 1) / scale
        kept = cv2.dnn.NMSBoxes(boxes.tolist(), score.tolist(), SCORE, OVERLAP)
        found = [(boxes[i], points[i]) for i in np.asarray(kept).ravel() if boxes[i][2:].min() >= MIN_SIDE]
        return sorted(found, key=lambda f: -f[0][2] * f[0][3])[:MOST_FACES]

    def template(self, picture, points):
        """The unit vector of a face."""
        matrix, _ = cv2.estimateAffinePartial2D(points, POINTS, method=cv2.LMEDS)
        face = cv2.warpAffine(picture, matrix, (FACE, FACE), flags=cv2.INTER_LINEAR)
        x = ((face[:, :, ::-1].astype(np.float32) - MEAN) * SCALE).transpose(2, 0, 1)
        vector = np.zeros(0)
        for side in (x, x[:, :, ::-1]):
            v = self.embed.run(None, {self.embed_input: np.ascontiguousarray(side[None])})[0][0]
            v = v / np.linalg.norm(v)
            vector = vector + v if vector.size else v
        return vector / np.linalg.norm(vector)

    def templates(self, data):
        """One unit vector per face of a JPEG."""
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise ValueError("not a picture")
        return [self.template(picture, points) for _, points in self.faces(picture)]


class Gallery:
    """Exact search over unit vectors."""

    def __init__(self, pipeline, people, threshold):
        """people: a JSON file, name to list of pictures."""
        self.names, rows = [], []
        with open(people) as f:
            listed = json.load(f)
        for name, pictures in listed.items():
            for path in pictures:
                with open(path, "rb") as f:
                    found = pipeline.templates(f.read())
                if found:
                    self.names.append(name)
                    rows.append(found[0])
        self.rows = np.stack(rows).astype(np.float32)
        self.threshold = threshold

    def search(self, vector):
        scores = self.rows @ vector
        best = int(scores.argmax())
        score = float(scores[best])
        return {"outcome": "match" if score >= self.threshold else "no_match", "subject": self.names[best] if score >= self.threshold else "", "score": score}


def load(threads):
    e = os.environ
    pipeline = Pipeline(e["DETECTOR"], e["EMBEDDER"], threads)
    return pipeline, Gallery(pipeline, e["PEOPLE"], float(e["THRESHOLD"]))
