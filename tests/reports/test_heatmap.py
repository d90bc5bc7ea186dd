import xml.etree.ElementTree as ElementTree

from reports.heatmap import Matrix, to_svg

SVG = "{http://www.w3.org/2000/svg}"


def matrix(**changes):
    values = {
        "key": "k",
        "title": "Colours",
        "rows": ["red", "blue"],
        "columns": ["red", "blue", "missing"],
        "counts": [[3, 1, 0], [0, 0, 2]],
        "right": [0, 1],
        "note": "",
    }
    return Matrix(**(values | changes))


def parse(found):
    return ElementTree.fromstring(found.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" '))


def test_every_count_stands_in_its_cell_and_is_said():
    root = parse(to_svg(matrix())[0])
    texts = [t.text for t in root.iter(f"{SVG}text")]
    assert [t for t in texts if t.isdigit()] == ["3", "1", "2"]
    assert texts.count("n 4") == 1 and texts.count("n 2") == 1
    said = {t.text for t in root.iter(f"{SVG}title")}
    assert "red asked, blue found: 1 of 4" in said
    assert root[1].text == "red: red 3, blue 1; blue: missing 2"


def test_names_stay_text_and_long_ones_are_cut():
    hostile = '<script>x</script>"&'
    drawn, _ = to_svg(matrix(rows=[hostile, "y" * 90], title=hostile))
    root = parse(drawn)
    assert root[0].text == hostile
    assert "<script" not in drawn
    assert max(len(t.text) for t in root.iter(f"{SVG}text")) <= 22


def test_shades_leave_the_numbers_readable():
    root = parse(to_svg(matrix(counts=[[9, 0, 0], [0, 0, 9]]))[0])
    opacities = [float(r.get("fill-opacity")) for r in root.iter(f"{SVG}rect") if r.get("fill-opacity")]
    assert max(opacities) == 0.64


def test_an_empty_row_divides_by_nothing():
    drawn, width = to_svg(matrix(counts=[[0, 0, 0], [0, 0, 0]]))
    assert width > 0 and "n 0" in drawn
    assert matrix(counts=[[0, 0, 0], [0, 0, 0]]).records() == []


def test_totals_and_the_share_as_asked():
    found = matrix(right=[0, None])
    assert (found.totals, found.total, found.n_right) == ([4, 2], 6, 3)
    assert [r["is_as_asked"] for r in found.records()] == [True, False, False]
