"""What people write who have no service: bm25s behind FastAPI. `serving.py` compares with it.

python bm25s_server.py CORPUS.jsonl PORT
"""

import json
import sys
from pathlib import Path

import bm25s
import Stemmer
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

documents = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
stemmer = Stemmer.Stemmer("english")
texts = [f"{document.get('title', '')} {document['text']}" for document in documents]
retriever = bm25s.BM25()
retriever.index(
    bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False
)
app = FastAPI()


class Query(BaseModel):
    """What is asked."""

    query: str
    k: int = 10


@app.get("/readyz")
def readyz() -> dict[str, str]:
    return {"status": "ready"}


@app.post("/search")
def search(query: Query) -> dict[str, list[dict[str, object]]]:
    tokens = bm25s.tokenize([query.query], stopwords="en", stemmer=stemmer, show_progress=False)
    rows, scores = retriever.retrieve(tokens, k=query.k, show_progress=False)
    hits = [
        {"id": documents[row]["_id"], "score": float(score), "text": texts[row]}
        for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True)
    ]
    return {"hits": hits}


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
