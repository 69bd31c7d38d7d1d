"""The choice of precision as the page tells it: what was tried, what each layer costs, and why."""

from __future__ import annotations

from typing import Any

import pytest
from report_content import decision, float_content, int8_content, ranges_of, stored, tensor, text_of

from deploy.report.adjusted import largest
from deploy.report.html import render
from deploy.report.precision_figures import pareto, sensitivity


def tried(name: str, **changed: Any) -> dict[str, Any]:
    """An engine that was measured in the final loop and not judged."""
    return {
        "name": name,
        "description": f"what {name} is",
        "int8_layers": 2,
        "float_layers": 0,
        "median_ms": 1.5,
        "predicted_ms": None,
        "rounds": 100,
        "final": True,
        "sqnr_db": None,
        "drop_pct": None,
        "outcome": "slower, not judged",
    } | changed


def layer(name: str, *, int8: bool = True, **changed: Any) -> dict[str, Any]:
    return {
        "layer": name,
        "operator": "Conv",
        "input": "x",
        "weight": f"{name}.w",
        "output": name,
        "int8": int8,
        "reason": "taken by the target's placement",
        "weight_sqnr_db": 41.25 if int8 else None,
    } | changed


def noise(name: str, alone: float, accumulated: float) -> dict[str, Any]:
    return {
        "layer": name,
        "op": "Conv",
        "tensor": f"{name}.in",
        "noise_db": alone,
        "accumulated_db": accumulated,
        "samples": 32,
    }


def chosen_content() -> dict[str, Any]:
    """Two INT8 engines and a float one were timed; the second INT8 engine passed."""
    content = int8_content()
    content["measured"]["tried"] = {
        "chosen": "convs",
        "reason": "measured on this machine: 0.950 ms, 1.27x the speed of bf16",
        "tried": [
            tried("all", median_ms=0.9, sqnr_db=7.5, drop_pct=4.0, outcome="missed a gate: 7.5 dB"),
            tried("convs", median_ms=0.95, sqnr_db=15.2, drop_pct=1.0, outcome="passed"),
            tried("bf16", int8_layers=0, float_layers=2, median_ms=1.21, rounds=8, final=False),
        ],
    }
    content["choice"] = {"sensitivity": [], "kept_float": {}, "measured_here": True}
    content["precision_layers"] = [
        layer("conv_0"),
        layer("conv_1", int8=False, reason="a first layer stays float"),
    ]
    return content


def with_noise() -> dict[str, Any]:
    content = chosen_content()
    content["choice"]["sensitivity"] = [
        noise("conv_1", -20.0, -19.58607314841775),
        noise("conv_0", -30.0, -30.0),
    ]
    content["choice"]["kept_float"] = {"conv_1": "a first layer stays float"}
    return content


class TestChosen:
    def test_the_summary_says_which_engine_and_why(self) -> None:
        text = text_of(render(chosen_content(), None))
        said = "1 of 2 layers run in INT8. Placement “convs”: measured on this machine: 0.950 ms, "
        assert f"{said}1.27x the speed of bf16." in text.split("How far this was proven")[0]

    def test_a_float_engine_that_won_is_told_without_int8_figures(self) -> None:
        content = chosen_content()
        content["summary"]["precision"] = "bf16"
        reason = "no INT8 engine is faster than bf16 here (measured on this machine)"
        content["measured"]["tried"] |= {"chosen": "bf16", "reason": reason}
        row = {"int8": False, "reason": "the whole engine is float", "weight_sqnr_db": None}
        content["precision_layers"] = [layer("conv_0", **row), layer("conv_1", **row)]
        text = text_of(render(content, ranges_of(x=tensor(-1, 3, 0.0, "all that was seen"))))
        assert "No INT8 engine is faster than bf16 here (measured on this machine)." in text
        assert "run in INT8" not in text
        assert "2 layers stay in float (conv_0, conv_1): the whole engine is float" in text

    def test_sums_kept_in_float_are_no_layers_that_could_have_multiplied(self) -> None:
        content = chosen_content()
        content["precision_layers"].append(layer("add", int8=False, operator="Add", reason="asked"))
        text = text_of(render(content, None))
        assert "1 of 2 layers run in INT8." in text
        assert "add stays in float: asked" in text

    def test_nothing_chosen_no_section(self) -> None:
        page = render(float_content(), None)
        assert 'id="precision"' not in page and "#precision" not in page.split("<script")[0]


class TestTried:
    def test_every_engine_with_its_figures_and_where_they_come_from(self) -> None:
        text = text_of(render(chosen_content(), None))
        assert "3 engines considered. Latencies were measured on Linux x86_64" in text
        assert (
            "all what all is 2 0 0.900 ms final, 100 rounds 7.5 dB 4.00 points missed a gate: "
            "7.5 dB" in text
        )
        assert "convs (shipped) what convs is 2 0 0.950 ms final, 100 rounds 15.2 dB 1.00" in text
        assert "bf16 what bf16 is 0 2 1.21 ms screening, 8 rounds slower, not judged" in text

    def test_predicted_times_are_called_so(self) -> None:
        content = chosen_content()
        content["choice"]["measured_here"] = False
        for row in content["measured"]["tried"]["tried"]:
            row |= {"median_ms": None, "predicted_ms": 0.0045, "rounds": 0, "final": False}
        page = render(content, None)
        text = text_of(page)
        assert "Times are predicted from the target's roofline, not measured" in text
        assert "all what all is 2 0 4.50 µs predicted 7.5 dB" in text
        assert "Latencies were measured" not in text
        assert "latency (ms), predicted, lower is better" in page

    def test_without_any_time_no_column_pretends_one(self) -> None:
        content = chosen_content()
        only = tried("all", median_ms=None, rounds=0, int8_layers=0, sqnr_db=15.2, outcome="passed")
        content["measured"]["tried"] |= {"chosen": "all", "tried": [only]}
        page = render(content, None)
        text = text_of(page)
        assert "1 engine considered; none was timed to choose among them." in text
        assert (
            "Engine What it is SQNR Outcome all (shipped) what all is 15.2 dB shipped, passed"
            in (text)
        )
        assert 'id="figure-pareto"' not in page

    def test_picture_has_only_what_has_both_figures(self) -> None:
        rows = chosen_content()["measured"]["tried"]["tried"]
        figure = pareto(rows, "convs")
        assert figure is not None
        line, points = figure["data"]
        assert (points["x"], points["y"]) == ([0.9, 0.95], [7.5, 15.2])
        assert points["text"] == ["all", "convs"]
        assert points["marker"]["color"] == ["--quiet", "--accent"]
        assert line["x"] == [0.9, 0.95]  # neither beats the other in both

    def test_the_line_leaves_out_what_another_one_beats_in_both(self) -> None:
        rows = [
            tried("fast", median_ms=1.0, sqnr_db=20.0),
            tried("beaten", median_ms=2.0, sqnr_db=19.0, final=False),
            tried("exact", median_ms=3.0, sqnr_db=30.0),
        ]
        figure = pareto(rows, "fast")
        assert figure is not None
        assert figure["data"][0]["x"] == [1.0, 3.0]
        assert figure["data"][1]["marker"]["symbol"] == ["circle", "circle-open", "circle"]

    def test_one_point_is_no_picture(self) -> None:
        assert pareto([tried("all", sqnr_db=15.2), tried("bf16")], "all") is None

    def test_names_are_text_in_the_picture(self) -> None:
        rows = [tried("<b>", sqnr_db=9.0, outcome="<i>"), tried("b", sqnr_db=8.0)]
        figure = pareto(rows, "b")
        assert figure is not None
        assert "&lt;b&gt;" in figure["data"][1]["text"]
        assert not any("<i>" in text for text in figure["data"][1]["hovertext"])


class TestSensitivity:
    def test_words_say_what_all_cost_and_what_is_left(self) -> None:
        text = text_of(render(with_noise(), None))
        assert "on 32 samples" in text
        assert "all 2 together come to -19.6 dB, without the one kept in float to -30.0 dB" in text
        assert "conv_1 Conv float -20.0 dB -19.6 dB conv_1.in" in text
        assert "conv_0 Conv INT8 -30.0 dB -30.0 dB conv_0.in" in text

    def test_nothing_measured_nothing_said(self) -> None:
        page = render(chosen_content(), None)
        assert "What 8 bits cost" not in page and 'id="figure-sensitivity"' not in page

    def test_bars_start_below_the_quietest(self) -> None:
        rows = with_noise()["choice"]["sensitivity"]
        exact, kept, together = sensitivity(rows, {"conv_1"})["data"]
        assert (exact["base"], exact["y"], exact["x"]) == (-33.0, [1], [3.0])
        assert (kept["base"], kept["y"], kept["x"]) == (-33.0, [0], [13.0])
        assert together["x"] == pytest.approx([-19.586, -30.0], abs=1e-3)

    def test_a_layer_without_noise_does_not_flatten_the_others(self) -> None:
        rows = [noise("a", -20.0, -20.0), noise("b", -200.0, -200.0)]
        (bars, together) = sensitivity(rows, set())["data"]
        assert bars["base"] == -93.0 and bars["x"] == [73.0, 0.0]
        assert together["x"] == [-20.0, -93.0]

    def test_only_the_noisiest_are_drawn_all_are_listed(self) -> None:
        content = chosen_content()
        rows = [noise(f"layer {i}", -20.0 - i, -19.0 - i) for i in range(30)]
        content["choice"]["sensitivity"] = rows
        assert len(sensitivity(rows, set())["data"][-1]["y"]) == 20
        page = render(content, None)
        assert "Noise of all 30 layers" in page and "layer 29" in text_of(page)

    @pytest.mark.parametrize(
        ("layer", "wanted"),
        [
            ("/features/features.3/conv/conv.0/conv.0.0/Conv", "features.3/conv.0.0"),
            ("/conv1/Conv", "conv1"),
            ("Conv", "Conv"),
            ("Conv -> y", "Conv -&gt; y"),
            ("/a/" + "b" * 40, "…" + "b" * 23),
        ],
    )
    def test_labels_keep_what_tells_layers_apart(self, layer: str, wanted: str) -> None:
        figure = sensitivity([noise(layer, -20.0, -20.0)], set())
        assert figure["layout"]["yaxis"]["ticktext"] == [wanted]

    def test_no_colours_where_nothing_of_it_was_shipped(self) -> None:
        rows = with_noise()["choice"]["sensitivity"]
        bars, _ = sensitivity(rows, {"conv_0", "conv_1"})["data"]
        assert bars["y"] == [0, 1] and bars["name"] == "alone in 8 bits"


class TestLayers:
    def test_each_layer_has_its_reason_and_figures(self) -> None:
        ranges = ranges_of(x=tensor(-1, 2.5, 0.01, "clipped 1 % of values"))
        text = text_of(render(with_noise(), ranges))
        assert (
            "conv_0 Conv INT8 taken by the target's placement 41.2 dB 42.6 dB -30.0 dB x "
            "-1 to 2.5 clipped 1 % of values" in text
        )
        assert "conv_1 Conv float a first layer stays float 14.1 dB -20.0 dB x" in text
        # its input isn't rounded: only the other layer and the list of ranges tell why
        assert text.count("clipped 1 % of values") == 2
        assert "conv_1 stays in float: a first layer stays float" in text

    def test_one_reason_of_many_layers_is_said_once(self) -> None:
        content = chosen_content()
        content["precision_layers"] = [
            layer(f"c{i}", int8=False, reason="asked for by --keep-float") for i in range(6)
        ]
        text = text_of(render(content, None))
        said = "6 layers stay in float (c0, c1, c2, c3 and 2 more): asked for by --keep-float"
        assert text.count(said) == 1

    def test_many_reasons_end_in_a_count(self) -> None:
        content = chosen_content()
        content["precision_layers"] = [
            layer(f"c{i}", int8=False, reason=f"reason {i}") for i in range(12)
        ]
        text = text_of(render(content, None))
        assert "c8 stays in float: reason 8" in text
        assert "3 more reasons, each in the table" in text
        assert "c9 stays in float" not in text

    def test_a_layer_without_a_figure_shows_none(self) -> None:
        content = chosen_content()
        content["precision_layers"] = [layer("other", weight_sqnr_db=None)]
        text = text_of(render(content, None))
        assert "other Conv INT8 taken by the target's placement x" in text


class TestStoredWeights:
    def test_what_was_stored_how_and_what_not(self) -> None:
        content = float_content()
        content["weights"] = [
            stored("a.w", "int8, 42.0 dB"),
            stored("b.w", "uint4, 20.1 dB", "int4", 125),
            stored("c.w", "900 bytes, below 16384: nothing to gain", "float", 1000),
        ]
        page = render(content, None)
        text = text_of(page)
        assert "Of the weights, 1 in int8, 1 in int4, 1 in float: 3.00 kB became 1.38 kB." in text
        assert "a.w int8 1.00 kB 250 B 4.00x int8, 42.0 dB" in text
        assert "b.w int4 1.00 kB 125 B 8.00x uint4, 20.1 dB" in text
        assert "c.w float 1.00 kB 1.00 kB 900 bytes, below 16384: nothing to gain" in text
        assert 'href="#precision"' in page and "What was tried" not in page


class TestAdjusted:
    def content(self) -> dict[str, Any]:
        content = int8_content()
        content["decisions"] += [
            decision("equalize", "channel_equalization", "applied", name, reason)
            for name, reason in (
                ("conv_0", "13 of 16 channels times 1 to 1.58"),
                ("conv_1", "28 of 32 channels times 0.5 to 256"),
            )
        ]
        content["decisions"] += [
            decision("equalize", "channel_equalization", "skipped", "conv_2", "an output"),
            decision("correct", "bias_correction", "applied", "conv_0", "mean error of up to 0.2"),
        ]
        return content

    def test_largest_changes_come_first(self) -> None:
        text = text_of(render(self.content(), ranges_of(conv_0=tensor(-1, 3))))
        said = "Channel equalization changed 2 layers, 41 channels in all; 1 was left as it was"
        assert said in text
        listed = text.split("Equalized before calibration")[1].split("Corrected after")[0]
        assert listed.index("conv_1") < listed.index("conv_0")
        assert "Bias correction changed 1 layer." in text

    def test_nothing_changed_nothing_said(self) -> None:
        text = text_of(render(int8_content(), ranges_of(conv_0=tensor(-1, 3))))
        assert "Equalized before" not in text and "Corrected after" not in text

    @pytest.mark.parametrize(
        ("reason", "wanted"),
        [
            ("28 of 32 channels times 0.5 to 256", 256.0),
            ("16 channels centred, moved by up to 1.84", 1.84),
            ("mean error of up to 0.0102, 0.08% of the output's span, in 16 channels", 0.08),
            ("moved by -0.375: 0 for 0.375", 0.375),
            ("nothing that has a size", 0.0),
        ],
    )
    def test_sizes_are_read_from_the_words(self, reason: str, wanted: float) -> None:
        assert largest(reason) == wanted
