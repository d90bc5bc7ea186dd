"""Our own drawings, as SVG, of classes that no emoji set shows alone and plainly.

Each class has two drawings: one for the two training styles, painted with gradients ("fluent") or flat
("noto"), and one with other shapes and other colours for the style that training never sees ("twemoji").
Drawings fill about 100 x 100 units and may stick out; the pack is cropped to what is painted. Only
``build_pack`` uses this module.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

Paint = Callable[[str], str]
Drawing = Callable[[Paint], str]


def _rgb(color: str) -> tuple[float, float, float]:
    return tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))  # type: ignore[return-value]


def _shade(color: str, lightness: float, hue: float = 0.0) -> str:
    """Scale the lightness of ``#rrggbb`` and turn its hue by a fraction of the circle."""
    h, light, s = colorsys.rgb_to_hls(*_rgb(color))
    r, g, b = colorsys.hls_to_rgb((h + hue) % 1, min(1.0, light * lightness), s)
    return "#" + "".join(f"{round(255 * v):02x}" for v in (r, g, b))


def svg(class_name: str, style: str) -> str:
    """SVG text of a drawn class in a style family ("fluent", "noto" or "twemoji")."""
    common, unseen = DRAWINGS[class_name]
    gradients: dict[str, str] = {}

    def flat(color: str) -> str:
        return color

    def shaded(color: str) -> str:
        name = "g" + color[1:]
        stops = ((0, _shade(color, 1.32)), (0.55, color), (1, _shade(color, 0.74, 0.02)))
        gradients[name] = (
            f'<linearGradient id="{name}" x1="0.1" y1="0" x2="0.8" y2="1">'
            + "".join(f'<stop offset="{o}" stop-color="{c}"/>' for o, c in stops)
            + "</linearGradient>"
        )
        return f"url(#{name})"

    if style == "twemoji":
        body = unseen(flat)
    else:
        body = common(shaded if style == "fluent" else flat)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-30 -30 160 160" width="160" height="160">'
        f"<defs>{''.join(gradients.values())}</defs>{body}</svg>"
    )


def _rect(x: float, y: float, w: float, h: float, fill: str, r: float = 0) -> str:
    return f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{r}" fill="{fill}"/>'


def _circle(x: float, y: float, r: float, fill: str) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{r}" fill="{fill}"/>'


def _path(d: str, fill: str) -> str:
    return f'<path d="{d}" fill="{fill}"/>'


def _line(d: str, color: str, width: float) -> str:
    return (
        f'<path d="{d}" fill="none" stroke="{color}" stroke-width="{width}" '
        'stroke-linecap="round" stroke-linejoin="round"/>'
    )


def _turn(degrees: float, body: str) -> str:
    return f'<g transform="rotate({degrees} 50 50)">{body}</g>'


def _hydrant(p: Paint) -> str:
    red, dark, grey = p("#e0352b"), p("#a81f1c"), p("#d8dde0")
    return (
        _rect(16, 44, 68, 22, dark, 5)
        + _rect(11, 42, 11, 26, red, 4)
        + _rect(78, 42, 11, 26, red, 4)
        + _rect(31, 30, 38, 60, red)
        + _path("M31 30 a19 19 0 0 1 38 0z", red)
        + _rect(43, 3, 14, 11, dark, 3)
        + _rect(24, 28, 52, 9, dark, 4)
        + _rect(20, 86, 60, 11, dark, 4)
        + _circle(50, 56, 13, grey)
        + _circle(50, 56, 6, dark)
    )


def _hydrant_unseen(p: Paint) -> str:
    return (
        _rect(12, 52, 76, 14, "#be1931", 3)
        + _path("M34 88 V36 L40 20 h20 L66 36 V88z", "#dd2e44")
        + _rect(44, 8, 12, 14, "#be1931", 2)
        + _rect(28, 34, 44, 6, "#be1931", 2)
        + _rect(24, 80, 52, 16, "#be1931", 2)
        + _rect(42, 50, 16, 18, "#ffcc4d", 8)
        + _circle(14, 59, 9, "#dd2e44")
        + _circle(86, 59, 9, "#dd2e44")
    )


def _meter(p: Paint) -> str:
    steel, dark, blue = p("#8a99a6"), p("#55636f"), p("#2f6fd0")
    return (
        _rect(44, 60, 12, 38, dark)
        + _rect(32, 92, 36, 7, dark, 3)
        + _path("M24 62 V30 a26 26 0 0 1 52 0 V62 q0 6 -6 6 H30 q-6 0 -6 -6z", steel)
        + _path("M33 32 a17 17 0 0 1 34 0z", p("#f4f7f9"))
        + _line("M50 31 L59 20", "#d9302a", 4)
        + _rect(33, 37, 34, 26, blue, 4)
        + _line("M44 58 V43 h7 a4.5 4.5 0 0 1 0 9 h-7", "#ffffff", 5)
    )


def _meter_unseen(p: Paint) -> str:
    return (
        _rect(46, 48, 8, 50, "#66757f")
        + _rect(22, 6, 56, 46, "#99aab5", 8)
        + _rect(28, 12, 44, 17, "#ffffff", 3)
        + _line("M32 26 q18 -16 36 0", "#77b255", 4)
        + _rect(47, 34, 6, 12, "#292f33", 2)
        + _circle(33, 40, 5, "#ffcc4d")
        + _circle(67, 40, 5, "#dd2e44")
        + _rect(36, 92, 28, 7, "#66757f", 2)
    )


def _bench(p: Paint) -> str:
    wood, deep, iron = p("#b5743a"), p("#95592a"), p("#3d434a")
    legs = "".join(_rect(x, 18, 7, 58, iron, 3) + _rect(x, 62, 7, 34, iron, 3) for x in (14, 79))
    feet = _rect(9, 90, 17, 6, iron, 3) + _rect(74, 90, 17, 6, iron, 3)
    slats = _rect(3, 20, 94, 12, wood, 3) + _rect(3, 37, 94, 12, wood, 3)
    return legs + feet + slats + _rect(1, 56, 98, 9, wood, 3) + _rect(1, 65, 98, 7, deep, 3)


def _bench_unseen(p: Paint) -> str:
    return (
        _line("M18 92 L22 58 L14 22 M82 92 L78 58 L86 22", "#99aab5", 6)
        + "".join(_rect(6, y, 88, 7, "#c1694f", 2) for y in (22, 33, 44))
        + _path("M12 58 H88 L96 72 H4z", "#8a4b38")
    )


def _bat(p: Paint) -> str:
    wood, grip = p("#d99a4e"), p("#7a4526")
    body = (
        _path("M40 4 q10 -6 20 0 q4 12 1 30 L54 72 H46 L39 34 q-3 -18 1 -30z", wood)
        + _rect(45, 68, 10, 24, grip, 2)
        + _rect(41, 90, 18, 8, grip, 4)
    )
    return _turn(45, f'<g transform="translate(-12.5 -12.5) scale(1.25)">{body}</g>')


def _bat_unseen(p: Paint) -> str:
    body = (
        _path("M42 -8 h16 q5 3 4 20 L54 84 H46 L38 12 q-1 -17 4 -20z", "#c1694f")
        + _rect(45, 76, 10, 26, "#292f33", 2)
        + _circle(50, 104, 7, "#292f33")
        + _rect(38, 8, 24, 5, "#662113")
    )
    return _turn(-40, body)


def _glove(p: Paint) -> str:
    tan, deep = p("#b9692c"), p("#8b4718")
    fingers = (
        '<g transform="rotate(-14 30 50)">'
        + _rect(20, 12, 17, 56, tan, 8.5)
        + "</g>"
        + _rect(37, 4, 17, 60, tan, 8.5)
        + '<g transform="rotate(12 62 50)">'
        + _rect(54, 6, 17, 58, tan, 8.5)
        + "</g>"
        + '<g transform="rotate(44 76 62)">'
        + _rect(68, 24, 18, 48, tan, 9)
        + "</g>"
    )
    lines = _line("M36 20 V50 M54 18 V48 M66 24 L62 50", "#6d3410", 3)
    return (
        fingers
        + _path("M18 52 q-2 44 34 45 q36 -2 34 -42 L64 44 H26z", tan)
        + lines
        + _path("M26 84 q26 12 50 -2 l-4 10 q-22 10 -42 1z", deep)
        + _circle(51, 66, 17, "#f7f4ec")
        + _line("M41 55 q7 11 0 22 M61 55 q-7 11 0 22", "#d2342d", 2.5)
    )


def _glove_unseen(p: Paint) -> str:
    return (
        _path(
            "M8 46 Q8 24 22 24 Q26 6 42 10 Q56 0 66 14 Q84 12 84 34 Q96 44 90 66 Q82 96 50 96 Q14 96 8 46z",
            "#8a4b38",
        )
        + _path("M22 52 Q22 36 36 38 L64 36 Q80 40 76 62 Q70 84 50 84 Q26 84 22 52z", "#c1694f")
        + _line("M24 26 L30 44 M44 12 L46 40 M66 16 L62 40", "#662113", 4)
        + _line("M80 36 L66 50 M88 50 L72 58", "#ffd983", 4)
    )


def _table(p: Paint) -> str:
    top, edge, leg = p("#c98544"), p("#9a5d29"), p("#7e4a20")
    return (
        _rect(22, 48, 7, 34, leg)
        + _rect(71, 48, 7, 34, leg)
        + _path("M20 22 H80 L98 48 H2z", top)
        + _rect(2, 48, 96, 9, edge, 2)
        + _rect(6, 56, 10, 40, edge, 2)
        + _rect(84, 56, 10, 40, edge, 2)
        + '<ellipse cx="36" cy="34" rx="12" ry="5.5" fill="#f6f6f2"/>'
        + '<ellipse cx="66" cy="38" rx="12" ry="5.5" fill="#f6f6f2"/>'
    )


def _table_unseen(p: Paint) -> str:
    return (
        _rect(45, 44, 10, 42, "#662113")
        + _path("M22 96 q4 -12 24 -14 h8 q20 2 24 14z", "#662113")
        + '<ellipse cx="50" cy="38" rx="48" ry="16" fill="#8a4b38"/>'
        + '<ellipse cx="50" cy="33" rx="48" ry="16" fill="#c1694f"/>'
        + '<ellipse cx="50" cy="31" rx="16" ry="5" fill="#f5f8fa"/>'
    )


def _remote(p: Paint) -> str:
    case, ring, key = p("#3b4048"), p("#9aa4b0"), p("#dfe5ea")
    keys = "".join(_rect(x, y, 8, 7, key, 3) for y in (58, 69, 80) for x in (34, 46, 58))
    body = (
        _rect(27, 0, 46, 100, case, 11)
        + _circle(38, 13, 5.5, "#ee3b30")
        + _rect(52, 9, 14, 8, key, 4)
        + _circle(50, 38, 15, ring)
        + _circle(50, 38, 6.5, case)
        + keys
    )
    return _turn(20, body)


def _remote_unseen(p: Paint) -> str:
    keys = "".join(_circle(x, y, 4, "#ccd6dd") for y in (46, 58, 70, 82) for x in (42, 58))
    return _turn(
        -25,
        _rect(32, 0, 36, 100, "#66757f", 16)
        + _rect(40, 8, 20, 7, "#dd2e44", 3)
        + _rect(40, 21, 8, 16, "#ffcc4d", 3)
        + _rect(52, 21, 8, 16, "#77b255", 3)
        + keys,
    )


def _microwave(p: Paint) -> str:
    case, glass, panel = p("#b4bec8"), p("#2c3540"), p("#5d6874")
    keys = "".join(_rect(x, y, 5.5, 5, "#eef2f5", 1) for y in (42, 50, 58, 66) for x in (77, 85))
    return (
        _rect(10, 76, 12, 8, panel, 2)
        + _rect(78, 76, 12, 8, panel, 2)
        + _rect(2, 18, 96, 62, case, 6)
        + _rect(8, 25, 58, 48, glass, 4)
        + _path("M16 66 L40 32 H52 L28 66z", "#52606e")
        + _rect(67, 26, 4, 46, "#eef2f5", 2)
        + _rect(74, 25, 20, 48, panel, 3)
        + _rect(77, 29, 14, 8, "#5be07f", 1)
        + keys
    )


def _microwave_unseen(p: Paint) -> str:
    return (
        _rect(4, 24, 92, 56, "#292f33", 4)
        + _rect(12, 32, 50, 40, "#66757f", 3)
        + '<ellipse cx="37" cy="62" rx="18" ry="5" fill="#ccd6dd"/>'
        + _rect(29, 50, 16, 12, "#ffac33", 4)
        + _circle(80, 42, 9, "#ccd6dd")
        + _circle(80, 64, 9, "#ccd6dd")
        + _line("M80 42 V35 M80 64 L85 59", "#292f33", 3)
        + _rect(64, 34, 4, 36, "#99aab5", 2)
    )


def _oven(p: Paint) -> str:
    case, dark, steel = p("#e3e7ea"), p("#2a2d33"), p("#8f9aa5")
    knobs = "".join(_circle(x, 22, 5, "#30343a") for x in (23, 37, 63, 77))
    return (
        _rect(10, 10, 80, 86, case, 5)
        + _rect(8, 6, 84, 7, dark, 3)
        + knobs
        + _rect(44, 18, 12, 8, "#ff5a3c", 2)
        + _rect(16, 33, 68, 6, steel, 3)
        + _rect(16, 43, 68, 38, dark, 4)
        + _path("M22 76 q28 -38 56 0z", p("#f58a26"))
        + _line("M20 62 H80", "#9aa4ae", 3)
        + _rect(10, 87, 80, 9, steel, 3)
    )


def _oven_unseen(p: Paint) -> str:
    return (
        _rect(12, 4, 76, 92, "#66757f", 4)
        + _rect(12, 4, 76, 20, "#292f33", 4)
        + _circle(28, 14, 6, "#ffffff")
        + _circle(72, 14, 6, "#ffffff")
        + _rect(40, 9, 20, 10, "#55acee", 2)
        + _rect(20, 30, 60, 56, "#292f33", 4)
        + _rect(27, 42, 46, 36, "#ffac33", 3)
        + _line("M27 54 H73 M27 66 H73", "#292f33", 3)
        + _rect(26, 33, 48, 5, "#ccd6dd", 2)
    )


def _toaster(p: Paint) -> str:
    case, dark, crust = p("#d8443a"), p("#3a3e45"), p("#a8642a")
    bread = "".join(
        _path(f"M{x} 50 V24 q-4 -16 14 -16 q18 0 14 16 V50z", crust)
        + _path(f"M{x + 4} 50 V25 q-2 -12 10 -12 q12 0 10 12 V50z", "#f2cf94")
        for x in (18, 52)
    )
    return (
        bread
        + _path("M6 86 V56 q0 -18 18 -18 H74 q18 0 18 18 V86z", case)
        + _rect(4, 84, 90, 9, dark, 4)
        + _rect(14, 36, 70, 6, dark, 3)
        + _rect(86, 54, 12, 8, dark, 3)
        + _circle(76, 70, 7, "#f1f3f5")
        + _rect(18, 52, 42, 5, "#f0a49d", 2.5)
    )


def _toaster_unseen(p: Paint) -> str:
    return (
        _path("M28 46 V22 q0 -12 22 -12 q22 0 22 12 V46z", "#d99e82")
        + _path("M33 46 V24 q0 -9 17 -9 q17 0 17 9 V46z", "#ffe8b6")
        + _rect(6, 40, 84, 46, "#99aab5", 14)
        + _rect(20, 40, 60, 5, "#292f33", 2)
        + _rect(88, 50, 10, 6, "#292f33", 2)
        + _rect(14, 86, 12, 6, "#292f33")
        + _rect(70, 86, 12, 6, "#292f33")
        + _circle(30, 66, 7, "#dd2e44")
    )


def _sink(p: Paint) -> str:
    basin, inner, steel = p("#dfeaf3"), p("#8fb3cf"), "#66788a"
    return (
        _line("M36 48 V24 q0 -16 16 -16 q16 0 16 14", steel, 9)
        + _rect(60, 20, 16, 8, steel, 3)
        + _line("M22 46 V36 M14 34 H30", steel, 6)
        + _path("M68 32 q7 10 0 15 q-7 -5 0 -15z", "#2f8fe8")
        + _path("M6 56 H94 Q90 92 64 92 H36 Q10 92 6 56z", basin)
        + _rect(0, 48, 100, 13, basin, 5)
        + '<ellipse cx="50" cy="54.5" rx="42" ry="4.5" fill="#3f83b8"/>'
        + _path("M12 64 H88 Q84 86 64 87 H36 Q16 86 12 64z", inner)
    )


def _sink_unseen(p: Paint) -> str:
    return (
        _path("M40 62 H60 L64 98 H36z", "#aab8c2")
        + _path("M8 40 H92 Q90 70 50 70 Q10 70 8 40z", "#ccd6dd")
        + _rect(4, 34, 92, 10, "#aab8c2", 5)
        + _line("M50 34 V14 H70 V22", "#55646e", 8)
        + _circle(30, 28, 6, "#dd2e44")
        + _circle(84, 28, 6, "#55acee")
        + _line("M70 28 V34", "#55acee", 5)
    )


def _fridge(p: Paint) -> str:
    door, line, handle = p("#a9d3e6"), "#4f7f98", p("#41535f")
    return (
        _rect(26, 93, 10, 6, handle, 2)
        + _rect(64, 93, 10, 6, handle, 2)
        + _rect(19, 1, 62, 94, door, 8)
        + _rect(19, 34, 62, 4, line)
        + _rect(27, 14, 6, 15, handle, 3)
        + _rect(27, 44, 6, 24, handle, 3)
        + _path("M62 6 h10 v24 h-4z", "#d6edf6")
        + _path("M62 44 h10 v44 h-4z", "#d6edf6")
    )


def _fridge_unseen(p: Paint) -> str:
    return (
        _rect(14, 2, 72, 94, "#99aab5", 4)
        + _rect(17, 5, 32, 58, "#ccd6dd", 2)
        + _rect(51, 5, 32, 58, "#ccd6dd", 2)
        + _rect(17, 66, 66, 26, "#ccd6dd", 2)
        + _rect(43, 18, 4, 32, "#55646e", 2)
        + _rect(53, 18, 4, 32, "#55646e", 2)
        + _rect(36, 70, 28, 4, "#55646e", 2)
        + _rect(23, 22, 14, 20, "#292f33", 2)
        + _rect(26, 28, 8, 8, "#55acee")
    )


def _drier(p: Paint) -> str:
    case, deep, dark = p("#d94fa0"), p("#9c2d72"), p("#3d3a44")
    return (
        '<g transform="rotate(14 36 60)">'
        + _rect(28, 44, 19, 54, deep, 8)
        + _rect(35, 58, 6, 13, "#f7d6ea", 3)
        + "</g>"
        + _path("M34 8 L76 16 V52 L34 60z", case)
        + _circle(34, 34, 26, case)
        + _rect(74, 10, 22, 48, dark, 4)
        + _circle(31, 34, 14, dark)
        + _line("M23 30 H39 M23 38 H39", "#e9c2d8", 3.5)
    )


def _drier_unseen(p: Paint) -> str:
    return (
        _path("M52 50 H74 L66 94 Q58 100 50 94z", "#3b88c3")
        + _path("M84 12 Q98 32 84 54 L24 46 V20z", "#55acee")
        + _path("M26 16 H4 V50 H26z", "#292f33")
        + _circle(76, 32, 11, "#226699")
        + _rect(55, 64, 8, 14, "#dd2e44", 3)
        + _line("M58 96 q10 6 22 -2", "#292f33", 4)
    )


def _tie(p: Paint) -> str:
    cloth, stripe = p("#2659c4"), p("#f0b23c")
    return (
        _path("M42 24 H58 L72 78 L50 100 L28 78z", cloth)
        + _path("M39.6 34 L62.6 41 L64.6 50 L37 42z", stripe)
        + _path("M34.7 53 L67.2 62 L69.6 70 L32 60z", stripe)
        + _path("M29.8 71 L63 86 L56 94 L31 82z", stripe)
        + _path("M34 2 Q50 7 66 2 L58 24 H42z", p("#1b429a"))
    )


def _tie_unseen(p: Paint) -> str:
    dots = "".join(
        _circle(x, y, 3.5, "#ffcc4d")
        for x, y in ((50, 36), (46, 50), (55, 50), (43, 65), (57, 65), (50, 80))
    )
    return (
        _path("M40 2 H60 L64 12 L56 24 H44 L36 12z", "#a0041e")
        + _path("M45 24 H55 L66 84 L50 98 L34 84z", "#dd2e44")
        + dots
    )


def _fork(p: Paint) -> str:
    steel = p("#7d8c9b")
    tines = "".join(_rect(x, -6, 6, 38, steel, 3) for x in (32, 42, 52, 62))
    return _turn(
        45,
        tines
        + _path("M32 28 H68 V38 q0 14 -11 16 H43 q-11 -2 -11 -16z", steel)
        + _rect(45, 48, 10, 60, steel, 5),
    )


def _fork_unseen(p: Paint) -> str:
    tines = "".join(_rect(x, -8, 7, 34, "#66757f", 3) for x in (33, 46.5, 60))
    return _turn(
        -35,
        tines
        + _path("M33 24 H67 L57 48 H43z", "#66757f")
        + _rect(45, 44, 10, 18, "#66757f")
        + _rect(42, 60, 16, 48, "#c1694f", 6),
    )


def _surfboard(p: Paint) -> str:
    board, stripe = p("#22b5c4"), p("#f7d547")
    return _turn(
        38,
        _path("M50 -14 Q75 18 71 66 Q67 106 56 112 H44 Q33 106 29 66 Q25 18 50 -14z", board)
        + _path("M50 -14 Q55 -6 56 0 V112 H44 V0 Q45 -6 50 -14z", stripe)
        + _path("M29.4 48 H70.6 L71 62 H29z", p("#f2683c"))
        + _path("M50 84 L58 104 H42z", "#23424c"),
    )


def _surfboard_unseen(p: Paint) -> str:
    return _turn(
        -12,
        _path("M50 0 Q76 36 68 86 Q60 102 50 96 Q40 102 32 86 Q24 36 50 0z", "#ffcc4d")
        + _path("M29 54 Q50 44 71 54 V66 Q50 56 29 66z", "#dd2e44")
        + _path("M31 74 Q50 64 69 74 L68 82 Q50 74 32 82z", "#f4900c"),
    )


def _snowboard(p: Paint) -> str:
    board, deep, dark = p("#7a3fc0"), p("#f06aa8"), p("#2c2f36")
    bind = "".join(
        _rect(24, y, 52, 13, dark, 5) + _rect(38, y - 4, 24, 21, dark, 5) for y in (22, 64)
    )
    return _turn(
        45,
        _rect(33, -14, 34, 128, board, 17)
        + _rect(33, 41, 34, 16, deep)
        + bind
        + _rect(42, -6, 16, 8, deep, 4)
        + _rect(42, 99, 16, 8, deep, 4),
    )


def _snowboard_unseen(p: Paint) -> str:
    bind = "".join(_rect(28, y, 44, 14, "#292f33", 3) for y in (24, 62))
    return _turn(
        -30,
        _rect(34, -4, 32, 108, "#5c913b", 14)
        + _path("M34 40 L66 30 V60 L34 70z", "#a6d388")
        + bind,
    )


def _skis(p: Paint) -> str:
    first, second, dark = p("#1f78d6"), p("#e8453a"), p("#2f343b")

    def ski(fill: str) -> str:
        return _path("M43 112 V6 Q43 -10 50 -16 Q57 -10 57 6 V112z", fill) + _rect(
            41, 46, 18, 18, dark, 4
        )

    return _turn(28, ski(first)) + _turn(-28, ski(second))


def _skis_unseen(p: Paint) -> str:
    ski = "".join(
        _path(f"M{x} 98 V14 Q{x} 2 {x + 7} 0 Q{x + 14} 2 {x + 14} 14 V98z", "#55acee")
        + _rect(x - 1, 50, 16, 14, "#292f33", 3)
        for x in (28, 58)
    )
    poles = "".join(
        _rect(x, 8, 4, 88, "#66757f") + _circle(x + 2, 86, 7, "#dd2e44") for x in (12, 84)
    )
    return ski + poles


def _couch(p: Paint) -> str:
    cloth, seat, arm, wood = p("#3f8f86"), p("#57b3a8"), p("#2c6e68"), p("#6b4424")
    return (
        _rect(12, 82, 8, 12, wood, 2)
        + _rect(80, 82, 8, 12, wood, 2)
        + _rect(12, 20, 76, 50, cloth, 10)
        + _rect(49, 24, 2.5, 30, "#2c6e68")
        + _rect(16, 52, 34, 18, seat, 5)
        + _rect(50, 52, 34, 18, seat, 5)
        + _rect(4, 68, 92, 17, arm, 5)
        + _rect(0, 40, 19, 45, arm, 8)
        + _rect(81, 40, 19, 45, arm, 8)
    )


def _couch_unseen(p: Paint) -> str:
    return (
        _path("M16 60 V30 Q16 20 26 20 H74 Q84 20 84 30 V60z", "#be1931")
        + _rect(16, 54, 68, 20, "#dd2e44", 4)
        + _path("M4 84 V50 a8 8 0 0 1 16 0 V70 H80 V50 a8 8 0 0 1 16 0 V84z", "#a0041e")
        + _rect(10, 84, 8, 9, "#292f33")
        + _rect(82, 84, 8, 9, "#292f33")
        + _rect(32, 34, 16, 16, "#ffcc4d", 3)
    )


_STOP = (
    "M30 42 q-8 -5 -11 1 q0 5 5 7 q7 2 6 7 q-3 6 -12 1",  # S
    "M34 41 H48 M41 41 V60",  # T
    "M53 50 q0 -9 6 -9 q6 0 6 9 q0 10 -6 10 q-6 0 -6 -10z",  # O
    "M71 60 V41 h6 q6 0 6 5.5 q0 5.5 -6 5.5 h-6",  # P
)


def _octagon(r: float, fill: str, cy: float = 50) -> str:
    a, b = r, r * 0.41421
    xy = ((-b, -a), (b, -a), (a, -b), (a, b), (b, a), (-b, a), (-a, b), (-a, -b))
    points = " ".join(f"{50 + x:.2f},{cy + y:.2f}" for x, y in xy)
    return f'<polygon points="{points}" fill="{fill}"/>'


def _stop_sign(p: Paint) -> str:
    return (
        _octagon(50, p("#f4f4f4"))
        + _octagon(45, p("#d8232a"))
        + "".join(_line(d, "#ffffff", 5) for d in _STOP)
    )


def _stop_sign_unseen(p: Paint) -> str:
    return (
        _rect(46, 60, 8, 40, "#66757f")
        + _octagon(36, "#dd2e44", 36)
        + _octagon(31, "#ffffff", 36)
        + _octagon(28.5, "#dd2e44", 36)
        + f'<g transform="translate(18 4) scale(0.63)">{"".join(_line(d, "#ffffff", 6) for d in _STOP)}</g>'
    )


def _racket_unseen(p: Paint) -> str:
    strings = _line(
        "M36 -2 V48 M50 -8 V54 M64 -2 V48 M30 10 H70 M28 24 H72 M30 38 H70", "#f5f8fa", 2.5
    )
    return _turn(
        -42,
        strings
        + '<ellipse cx="50" cy="23" rx="24" ry="33" fill="none" stroke="#77b255" stroke-width="7"/>'
        + _path("M40 52 L47 72 H53 L60 52z", "#3e721d")
        + _rect(45, 68, 10, 40, "#292f33", 4),
    )


# class -> (drawing of the training styles, drawing of the unseen style)
DRAWINGS: dict[str, tuple[Drawing, Drawing]] = {
    "stop sign": (_stop_sign, _stop_sign_unseen),
    "fire hydrant": (_hydrant, _hydrant_unseen),
    "parking meter": (_meter, _meter_unseen),
    "bench": (_bench, _bench_unseen),
    "tie": (_tie, _tie_unseen),
    "skis": (_skis, _skis_unseen),
    "snowboard": (_snowboard, _snowboard_unseen),
    "baseball bat": (_bat, _bat_unseen),
    "baseball glove": (_glove, _glove_unseen),
    "surfboard": (_surfboard, _surfboard_unseen),
    "tennis racket": (_racket_unseen, _racket_unseen),
    "fork": (_fork, _fork_unseen),
    "couch": (_couch, _couch_unseen),
    "dining table": (_table, _table_unseen),
    "tv remote": (_remote, _remote_unseen),
    "microwave": (_microwave, _microwave_unseen),
    "oven": (_oven, _oven_unseen),
    "toaster": (_toaster, _toaster_unseen),
    "sink": (_sink, _sink_unseen),
    "refrigerator": (_fridge, _fridge_unseen),
    "hair drier": (_drier, _drier_unseen),
}
