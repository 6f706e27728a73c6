"""The README's picture of measured times."""

import xml.etree.ElementTree as ET

import pytest

from bench import comparison

LAYERS = {"64 × 64": {"NumPy": 2.0, "JAX": 0.5}}


def test_the_picture_is_that_of_the_results():
    assert not comparison.stale(), "python -m bench.comparison --update draws it anew"


def test_another_picture_is_stale(tmp_path, monkeypatch, capsys):
    picture = tmp_path / "picture.svg"
    picture.write_text("old")
    assert comparison.stale(picture)
    monkeypatch.setattr(comparison, "PICTURE", picture)
    assert comparison.main(["--update"]) == 0
    assert picture.read_text() == comparison.drawn()


def test_bars_are_as_long_as_the_ratios():
    root = ET.fromstring(comparison.svg({"a < b": LAYERS}))
    name = "{http://www.w3.org/2000/svg}"
    legend, bars = root.findall(f"{name}rect")[:3], root.findall(f"{name}rect")[3:]
    assert [one.get("fill") for one in legend] == list(comparison.COLORS.values())
    assert [one.get("fill") for one in bars] == [comparison.COLORS[one] for one in ("NumPy", "JAX")]
    numpy, jax = (float(one.get("width")) for one in bars)
    # lengths are rounded to 0.1
    assert numpy == pytest.approx(4 * jax, abs=0.3)
    line = root.find(f"{name}line")
    assert float(line.get("x1")) - comparison.LABELS == pytest.approx(2 * jax, abs=0.3)
    texts = [one.text for one in root.findall(f"{name}text")]
    assert "a < b" in texts
    assert "2.00 ×" in texts


def test_a_ratio_is_the_median_of_the_runs():
    rows = [
        {
            "what": "gpugrad CPU",
            "dtype": "float32",
            "n": 9,
            "k": 8,
            "m": 7,
            "ratios": {"NumPy": {"ratio": ratio}},
        }
        for ratio in (1.0, 5.0, 2.0)
    ]
    assert comparison.ratios({"runs": [[row] for row in rows]}) == {"9 × 8 × 7": {"NumPy": 2.0}}
