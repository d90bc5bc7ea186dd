import xml.etree.ElementTree as ElementTree

import pandas
import pytest

from reports import plots


def chart(**changes):
    return plots.interval_chart(["overall", "colors"], [0.5, None], [(0.4, 0.6), None], **changes)


def test_points_and_intervals_stand_where_the_figures_say():
    _, ax = chart()
    lines = [line.get_xdata() for line in ax.lines]
    assert any(list(x) == [0.4, 0.6] for x in lines)
    assert any(list(x) == [0.5] for x in lines)
    assert [text.get_text() for text in ax.texts] == ["not given"]
    assert ax.get_xlim() == (0, 1)


def test_bars_are_shares_of_all_outputs():
    counts = pandas.DataFrame({"right": [3, 0], "wrong": [1, 2]}, index=["a", "b"])
    _, ax = plots.kinds_chart(counts)
    widths = [[bar.get_width() for bar in container] for container in ax.containers]
    assert widths == [[0.75, 0.0], [0.25, 1.0]]


def test_figures_follow_the_theme_and_carry_their_text():
    fig, _ = chart()
    svg = plots.to_svg(fig, "Results", 'colors < 0.5 & "so on"')
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img" and "width" not in root.attrib
    assert root[0].text == "Results"
    assert root[1].text == 'colors < 0.5 & "so on"'
    assert "var(--accent)" in svg and plots.ACCENT not in svg and plots.INK not in svg
    assert "<style" not in svg and "http://" not in svg.replace(
        'xmlns="http://www.w3.org/2000/svg"', ""
    ).replace('xmlns:xlink="http://www.w3.org/1999/xlink"', "")


def test_labels_of_others_stay_text():
    fig, _ = plots.interval_chart(["<script>x</script>", "$\\frac{1}$"], [0.1, 0.2], [None, None])
    svg = plots.to_svg(fig, "t", "d")
    assert "<script" not in svg and "&lt;script&gt;" in svg
    assert "$\\frac{1}$" in svg.replace("&#36;", "$")


def test_the_same_figure_is_drawn_the_same():
    assert plots.to_svg(chart()[0], "t", "d") == plots.to_svg(chart()[0], "t", "d")


@pytest.mark.parametrize("n", [1, 9, 14])
def test_every_kind_has_a_colour(n):
    kinds = ["right", *(f"kind {i}" for i in range(n)), "not scored"]
    colors = plots.kind_colors(kinds)
    assert len(colors) == len(kinds)
    assert colors[0] == plots.KIND_COLORS[0] and colors[-1] == plots.UNSCORED_COLOR
    assert all(plots.css_color(color).startswith("var(--kind-") for color in colors)
