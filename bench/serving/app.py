"""The peer as FastAPI's and onnxruntime's documentation write it: an upload, a plain function that FastAPI runs in its thread
pool, sessions with default options."""

from fastapi import FastAPI, HTTPException, UploadFile

import pipeline

app = FastAPI()
model, gallery = pipeline.load(threads=0)


@app.get("/ready")
def ready():
    return {"people": len(gallery.names)}


@app.post("/identify")
def identify(picture: UploadFile):
    try:
        templates = model.templates(picture.file.read())
    except ValueError as e:
        raise HTTPException(415, str(e))
    return [gallery.search(t) for t in templates]
