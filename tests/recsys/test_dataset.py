"""A log and the clicks that came after a training on it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gossamer.kernels.errors import InputError, MismatchError
from gossamer.recsys import LiveInteractions, read_interactions
from gossamer.recsys.dataset import LogConfig, read_split, recall, remember, write_clicks

TAKEN = [("u", "a", 1.0), ("u", "b", 2.0), ("v", "a", 3.0)]
CLICKS = [("u", "c", 9.0), ("w", "a", 8.0), ("v", "a", 7.0)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    user, item, time = zip(*TAKEN, strict=True)
    kind = ["old", "old", "new"]
    pq.write_table(
        pa.table({"user": user, "item": item, "time": time, "kind": kind}), tmp_path / "log.parquet"
    )
    return tmp_path / "log.parquet"


@pytest.fixture(params=["clicks.parquet", "clicks.tsv"])
def clicks(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    with LiveInteractions.open(tmp_path / "live", create=True) as live:
        live.append(CLICKS)
        write_clicks(live.interactions(), tmp_path / request.param)
    return tmp_path / str(request.param)


def test_clicks_are_read_as_they_were_written(clicks: Path) -> None:
    rows = read_interactions(clicks, time="time").table.to_pylist()
    assert [(row["user"], row["item"], row["time"]) for row in rows] == CLICKS


@pytest.mark.parametrize("time", [None, "time"])
def test_clicks_are_joined_to_the_log(log: Path, clicks: Path, time: str | None) -> None:
    config = LogConfig(time=time, features=("kind",), hold_out="none")
    joined = read_split(log, config, clicks=[clicks]).fit
    pairs = [(row["user"], row["item"]) for row in joined.table.to_pylist()]
    assert sorted(pairs) == [("u", "a"), ("u", "b"), ("u", "c"), ("v", "a"), ("w", "a")]
    kinds = dict(zip(joined.user_ids.to_pylist(), joined.user_feature("kind").to_pylist(), strict=True))
    assert kinds == {"u": "old", "v": "new", "w": None}, "also where all was taken again"
    if time is not None:
        assert joined.times is not None
        assert sorted(joined.times) == [1, 2, 7, 8, 9]


def test_a_run_remembers_its_clicks(log: Path, clicks: Path, tmp_path: Path) -> None:
    config = LogConfig(hold_out="none")
    split = read_split(log, config, clicks=[clicks])
    remember(tmp_path / "run", log, config, split, clicks=[clicks])
    assert recall(tmp_path / "run")[0].fit.fingerprint() == split.fit.fingerprint()
    write_clicks(read_interactions(clicks, time="time").take(pa.array([0]).to_numpy()), clicks)
    with pytest.raises(MismatchError, match="clicks"):
        recall(tmp_path / "run")


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with LiveInteractions.open(tmp_path / "live", create=True) as live:
        write_clicks(live.interactions(), tmp_path / "none.parquet")
        assert len(read_interactions(tmp_path / "none.parquet", time="time")) == 0
        for odd in ("a\tb", 'a"b', "a\nb"):
            live.append([("u", odd)])
            with pytest.raises(InputError, match=r"write a \.parquet file"):
                write_clicks(live.interactions(), tmp_path / "odd.tsv")
            live.forget(live.position)
        with pytest.raises(InputError, match=r"neither \.parquet nor \.tsv"):
            write_clicks(live.interactions(), tmp_path / "clicks.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live", "none.parquet"]
