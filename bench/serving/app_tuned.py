"""The peer with what its users do for speed: one worker process a core (uvicorn --workers), one thread and no spinning in
each session, uvloop and httptools, the picture as the raw body, orjson, no thread pool between the loop and the model."""

import orjson
from fastapi import FastAPI, Request, Response

import pipeline

app = FastAPI()
model, gallery = pipeline.load(threads=1)


@app.get("/ready")
async def ready():
    return {"people": len(gallery.names)}


@app.post("/identify")
async def identify(request: Request):
    try:
        templates = model.templates(await request.body())
    except ValueError as e:
        return Response(orjson.dumps({"detail": str(e)}), 415, media_type="application/json")
    return Response(orjson.dumps([gallery.search(t) for t in templates]), media_type="application/json")
