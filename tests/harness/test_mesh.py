"""Layouts of devices, units dealt to slices, and where arrays lie, on eight fake devices."""

import dataclasses
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from scripts.harness import cli, mesh, placement, store


@pytest.mark.parametrize(
    ("text", "layout"),
    [("data=4,sweep=2", (4, 2)), ("sweep=2,data=4", (4, 2)), ("data=8", (8, 1)), ("sweep=3", (1, 3))],
)
def test_layouts_are_read(text, layout):
    assert mesh.parse(text) == mesh.Layout(*layout)


@pytest.mark.parametrize(
    "text", ["", "4", "data", "data=0", "data=-1", "data=4,", "data=4,data=2", "rows=4", "data=4 "]
)
def test_other_words_are_refused(text):
    with pytest.raises(ValueError, match="data=4,sweep=2, got"):
        mesh.parse(text)


def test_more_devices_than_there_are_is_said():
    with pytest.raises(ValueError, match="needs 16 devices; there are 8"), mesh.session("data=8,sweep=2"):
        pass


def test_without_a_layout_nothing_changes():
    x = jnp.arange(7.0)
    with mesh.session():
        assert mesh.current() is None
        assert mesh.leads()
        for place in (placement.rows, placement.table, placement.everywhere, placement.batches):
            assert place(x) is x
        assert list(mesh.each("abc", lambda item: None)) == ["a", "b", "c"]


def test_rows_lie_over_the_slice_and_all_else_on_each_device():
    with mesh.session("data=4,sweep=2"):
        x = jnp.arange(8.0)
        assert x.sharding.spec == P()
        assert len(x.devices()) == 4
        spread = placement.rows({"x": x, "y": np.arange(16).reshape(8, 2)})
        assert {leaf.sharding.spec for leaf in spread.values()} == {P("data")}
        assert spread["x"].addressable_shards[0].data.shape == (2,)
        np.testing.assert_array_equal(placement.on_host(spread)["y"], np.arange(16).reshape(8, 2))
        assert placement.batches(jnp.zeros((3, 8), jnp.int32)).sharding.spec == P(None, "data")
        with pytest.raises(ValueError, match=r"7 rows cannot be divided among 4 devices; .* such as 4"):
            placement.rows(jnp.arange(7.0))
        with pytest.raises(ValueError, match="--batch-size 6 cannot be divided among 4 devices"):
            placement.batches(jnp.zeros((3, 6), jnp.int32))


@pytest.mark.parametrize(("count", "padded"), [(1, 8), (8, 8), (9, 16), (30_719, 30_720), (30_721, 31_680)])
def test_tables_are_filled_up_with_rows_of_zeros(count, padded):
    table = {"x": np.ones((count, 2)), "weight": jnp.ones(count)}
    with mesh.session("data=8"):
        placed = placement.table(table)
        assert {leaf.sharding.spec for leaf in placed.values()} == {P("data")}
        here = placement.on_host(placed)
    assert here["x"].shape == (padded, 2)
    for name, leaf in table.items():
        np.testing.assert_array_equal(here[name][:count], leaf)
        assert not here[name][count:].any()


def test_slices_work_side_by_side_each_on_its_devices():
    meeting, devices = threading.Barrier(4, timeout=30), {}

    def work(item):
        if item < 4:
            meeting.wait()  # Passes only if four items are at work at the same time.
        devices[item] = frozenset(device.id for device in (jnp.ones(4) + item).devices())
        assert placement.rows(jnp.arange(4.0)).sum() == 6

    with mesh.session("data=2,sweep=4"):
        assert sorted(mesh.each(range(12), work)) == list(range(12))
    assert len({devices[item] for item in range(4)}) == 4
    assert {len(used) for used in devices.values()} == {2}


def test_a_failure_stops_the_others_and_is_the_one_that_is_raised():
    begun = []

    def work(item):
        begun.append(item)
        if item == 1:
            raise ValueError("one")
        time.sleep(0.05)

    with mesh.session("sweep=2"), pytest.raises(ValueError, match="one"):
        list(mesh.each(range(50), work))
    assert len(begun) <= 4


def test_arrays_move_between_slices():
    with mesh.session("data=2,sweep=2"):
        fixed = jnp.arange(6.0)
        sums = {}

        def work(item):
            here = placement.everywhere(fixed)
            sums[item] = (float((here + item).sum()), frozenset(device.id for device in here.devices()))

        list(mesh.each(range(8), work))
    assert [sums[item][0] for item in range(8)] == [15 + 6 * item for item in range(8)]
    assert all(len(used) == 2 for _, used in sums.values())


@dataclasses.dataclass(frozen=True)
class Config(cli.Common):
    """Squares."""

    count: int = 5


def main(config):
    with store.open_run(config.out, config, environment={}) as run:
        run.do([{"k": k} for k in range(config.count)], lambda unit: [{"square": float(jnp.square(unit["k"]))}])


@pytest.mark.parametrize("layout", ["data=2", "sweep=4", "data=2,sweep=3"])
def test_every_script_takes_a_mesh_and_resumes_on_another(tmp_path, layout):
    words = ["--out", str(tmp_path / "run")]
    assert cli.run(main, Config, argv=[*words, "--mesh", layout]) == 0
    whole = [row["square"] for row in store.read_rows(tmp_path / "run")]
    assert whole == [0, 1, 4, 9, 16]
    (tmp_path / "run" / "units").joinpath(next((tmp_path / "run" / "units").glob("k=3*")).name).unlink()
    assert cli.run(main, Config, argv=[*words, "--mesh", "sweep=2"]) == 0
    assert [row["square"] for row in store.read_rows(tmp_path / "run")] == whole
    assert mesh.current() is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mesh", "data=64"], "needs 64 devices; there are 8"),
        (["--mesh", "eight"], "expected axes and numbers of devices such as data=4,sweep=2, got 'eight'"),
        (["--coordinator", "localhost:1"], "needs --processes, how many there are, and --process"),
        (["--coordinator", "localhost:1", "--processes", "2", "--process", "2"], "got 2 and 2"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path, capsys, words, said):
    assert cli.run(main, Config, argv=["--out", str(tmp_path / "run"), *words]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()
