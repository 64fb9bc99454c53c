"""A collection small enough to train on in a second: animals, what they do and where."""

import json
from pathlib import Path

from gossamer.lsr.backbone import BackboneConfig
from gossamer.lsr.encoder import EncoderConfig, SparseEncoder
from gossamer.lsr.start import StartConfig, start_encoder

ANIMALS = ["otter", "badger", "heron", "falcon", "lynx", "beetle", "salmon", "viper", "raven", "marmot"]
PLACES = ["river", "forest", "meadow", "mountain", "harbour", "desert"]
DEEDS = ["sleeps", "hunts", "swims", "sings"]

START = StartConfig(
    vocabulary_size=160,
    backbone=BackboneConfig(layers=1, width=16, heads=2, mlp_width=16, max_tokens=32),
    encoder=EncoderConfig(max_query_tokens=8, max_document_tokens=16),
)


def write_collection(folder: Path) -> Path:
    """A BEIR folder of 60 documents with training pairs."""
    (folder / "qrels").mkdir(parents=True)
    documents, queries, pairs, qrels = [], [], [], ["query-id\tcorpus-id\tscore"]
    for a, animal in enumerate(ANIMALS):
        for p, place in enumerate(PLACES):
            number, deed = f"{animal}-{place}", DEEDS[(a + p) % len(DEEDS)]
            text = f"Every night it {deed} near the {place}."
            documents.append(
                {"_id": number, "title": animal, "text": text, "metadata": {"place": place, "row": a}}
            )
            queries.append({"_id": f"q-{number}", "text": f"{deed} {place} {animal}"})
            pairs.append({"query": f"the {animal} {deed}", "document": f"{animal} {text}"})
            qrels.append(f"q-{number}\t{number}\t1")
    for name, rows in (("corpus", documents), ("queries", queries), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
    (folder / "qrels" / "test.tsv").write_text("\n".join(qrels) + "\n", encoding="utf-8")
    return folder


def tiny_encoder(folder: Path) -> SparseEncoder:
    """An untrained encoder for it."""
    return start_encoder(START, folder, name="tiny")
