r"""Ways to write an answer, by kinds: each line is `gold <- said`, both as they stand in a box or a column of answers.

Under `SAME` what is said is the gold answer in other clothes; under `OTHER` it only looks like it.
"""

from __future__ import annotations

SAME = {
    "dollars as delimiters": r"""
        17\text{ cm} <- $17$
        $17$ <- 17\text{ cm}
        $\frac{3}{4}$ <- 0.75 euros
        $15\pi$ <- 15\pi\text{ m}^2
        $8.50$ <- 8.5
        $4,321$ <- 4321
        9 <- $$9$$
        9 <- $9$ hours
        8, 11 <- $8$ and $11$
        $x^4+C$ <- x^4+C
        A <- $A$
        C <- $$C$$
        10:15 <- $10:15$
        """,
    "money": r"""
        45 <- $45
        $45 <- 45
        19 <- $\$19$
        \$1,250.50 <- 1250.5
        €7 <- 7 \text{ euros}
        6\text{ pounds} <- £6
        $3.5 million <- 3500000
        \$2 \text{ million} <- 2,000,000 dollars
        \$0.45 <- 45\text{ cents}
        """,
    "units": r"""
        34 <- \text{34 dollars}
        34 <- \mathrm{34\ kg}
        34 <- \textbf{34 litres}
        34 <- 34 km/h
        34 <- 34 N/m
        34 <- 34 kg/m^3
        34 <- 34 J
        34 <- 34 rpm
        34 <- 34^\circ F
        34 <- 34 (miles)
        34 <- 34\text{ ft}/\text{s}
        34 <- 34 \frac{\text{g}}{\text{mol}}
        34 \mathrm{~km} / \mathrm{h} <- 34
        34 <- 34\ \mathrm{m\,s^{-2}}
        9\pi <- 9\pi cm^3
        9\pi <- 9\pi square units
        2\sqrt{3} <- 2\sqrt{3} m
        k <- k \text{ ways}
        x+2 <- (x+2) \text{ cm}
        7, 9 <- 7\text{ mm}, 9\text{ mm}
        7, 9 <- 7 cm and 9 cm
        (7, 9) <- (7\text{ m}, 9\text{ m})
        45, 135 <- 45^\circ, 135^\circ
        15, 35 <- 15\%, 35\%
        0.25, 0.75 <- 25\%, 75\%
        2, 5 <- 2\text{ hens and }5\text{ ducks}
        81 <- 81元
        81 <- 81 км
        3.5\text{ m/s} <- 3.5 meters per second
        40\text{ mph} <- 40 \text{ miles per hour}
        6\text{ sq. ft} <- 6\text{ square feet}
        34 <- 34 {\rm ~cm}
        34 <- 34 \mu\text{m}
        34 <- 34 \Omega
        \$34 \text{ per hour} <- 34 dollars per hour
        """,
    "one quantity": r"""
        90\text{ minutes} <- 1.5\text{ hours}
        2\text{ m} <- 200\text{ cm}
        3\text{ ft}^2 <- 432\text{ in}^2
        36\text{ km/h} <- 10\text{ m/s}
        135 minutes <- 2 hours 15 minutes
        5\text{ ft } 3\text{ in} <- 63\text{ inches}
        """,
    "choices": r"""
        D <- D. 14
        D <- D) 14
        D <- D: 14
        D <- (D) \frac{1}{2}
        D <- \text{D. } 14
        D <- \textbf{(D)}\ 14
        D <- \mathbf{D}
        D <- Option D
        D <- \text{choice (D)}
        D <- \text{D: none of them}
        \textbf{(D)}\ 14 <- D
        \textbf{(D)}\ 14 <- 14
        D) 14 <- \text{(D) } 14
        (D) 14 <- 14
        14 <- D. 14
        \text{A, D} <- D, A
        A, D <- \text{A and D}
        """,
    "letters at a number": r"""
        6s <- 6s
        $7m$ <- 7m
        5l <- l \cdot 5
        2gh <- 2hg
        \sqrt{2gs} <- \sqrt{2gs}
        3a+2m <- 2m+3a
        8 <- 8m
        8 <- 8 m
        8 m <- 8
        8m <- 8\text{ meters}
        \frac{2}{3} <- \frac{2}{3} h
        """,
    "texts": r"""
        \text{June 9} <- June 9
        Mr. Lee <- \text{Mr. Lee}
        \text{Sunday, June 9} <- Sunday, june 9.
        \text{Ben and Amy} <- Ben, Amy
        Zoë <- \text{Zoë}
        \text{слева} <- Слева
        東京 <- 東京
        \text{cannot be determined} <- Cannot be determined.
        """,
    "times": r"""
        16:45 <- 4:45 p.m.
        \text{4:45 p.m.} <- 4:45 PM
        9 a.m. <- 9:00 am
        0:20 <- 12:20 a.m.
        noon <- 12:00 p.m.
        """,
    "signs": r"""
        x^{12} <- x¹²
        a_2 <- a₂
        \sqrt{15} <- √15
        \frac{7}{8} <- ⅞
        3\frac{2}{5} <- 3⅖
        \phi-\delta <- φ-δ
        \pi r^2 <- πr²
        26 <- 26 ✓
        """,
    "styles": r"""
        48 <- \boldsymbol{48}
        48 <- \bm{48}
        48 <- \textcolor{teal}{48}
        48 <- \color{red} 48
        48 <- {\color{red}48}
        48 <- \underline{48}
        48 <- \Large 48
        48 <- {\rm 48}
        48 <- 48\ \,
        \frac{x}{5} <- \boldsymbol{\dfrac{x}{5}}
        """,
    "Markdown": r"""
        31 <- **31**
        31 <- `31`
        31 <- __31__
        31 <- *31*
        a^3+1 <- a**3+1
        2^{11} <- 2**11
        """,
    "numbers": r"""
        \frac{2}{9} <- 0.\overline{2}
        0.\overline{27} <- \frac{3}{11}
        0.8\overline{3} <- \frac{5}{6}
        \frac{5}{9} <- 0.\dot{5}
        16\frac23\% <- \frac{1}{6}
        16\frac{2}{3}\% <- 16\frac23\%
        -2\frac14 <- -2.25
        78901 <- 78,\! 901
        78901 <- 78\,901
        11 <- 11^{\text{th}}
        2nd <- 2
        \emptyset <- \varnothing
        \emptyset <- \{\}
        347_8 <- (347)_8
        347_8 <- 347_{\text{eight}}
        347_8 <- 347 \text{ (base 8)}
        \approx 6 <- about 6
        about 6 <- 6
        \text{about } 6 <- 6
        """,
    "typed without LaTeX": r"""
        \frac{\pi}{3} <- pi/3
        \frac{\sqrt{2}}{2} <- sqrt(2)/2
        \sqrt{x^2+1} <- sqrt(x^2+1)
        \cos(3x) <- cos(3x)
        \ln 7 <- ln(7)
        2.5 \times 10^{-7} <- 2.5 x 10^{-7}
        2.5 \times 10^{7} <- 2.5*10**7
        \infty <- infinity
        """,
    "upright letters and functions": r"""
        e^3 <- \mathrm{e}^3
        2-5i <- 2-5\mathrm{i}
        e <- \text{e}
        \ln 3 <- \operatorname{ln} 3
        \ln 3 <- \mathrm{ln}(3)
        """,
}

OTHER = {
    "dollars as delimiters": r"""
        17 <- $17$ or $18$
        17 <- $17$, $18$
        17 <- $17x$
        """,
    "money": r"""
        \$7 <- €7
        €7 <- £7
        7\text{ euros} <- \$7
        $7 <- 7\text{ cm}
        9 <- $9A$
        9 <- $9C$
        \$0.45 <- 45\text{ dollars}
        """,
    "units": r"""
        5\text{ cm} <- 5\text{ cm}^2
        5\text{ cm}^3 <- 5\text{ cm}^2
        40\text{ mph} <- 40\text{ m/s}
        40\text{ km/h} <- 40\text{ km}
        40\text{ m/s}^2 <- 40\text{ m/s}
        20^\circ F <- 20^\circ C
        7 <- 7\text{ mm}, 9\text{ mm}
        7 <- 7\text{ cm or 9}
        15\%, 35\% <- 15\%, 30\%
        """,
    "one quantity": r"""
        90\text{ minutes} <- 1.4\text{ hours}
        2\text{ m} <- 200\text{ cm}^2
        2\text{ m} <- 2\text{ hours}
        135 minutes <- 2 hours 35 minutes
        """,
    "choices": r"""
        D <- B. 14
        D <- d
        D <- B or D
        D <- (B) 14 or (D) 15
        D <- D = 14
        D <- BD
        (D) 14 <- (D) 15
        (D) 14 <- (B) 14
        (D) 14 <- 15
        \text{A, D} <- A
        A <- \text{A, D}
        """,
    "letters at a number": r"""
        6s <- 6
        5m^2 <- 5
        5m^2 <- 5m
        5m^2 <- 5m^3
        3a+2m <- 3a+2
        2w+2l <- 2w+2
        \frac{1}{3}m <- \frac{1}{3}
        2n+1 <- (2n+1)m
        $7m$ <- 7
        8 <- 8M
        8 <- 8G
        8 <- 8x
        x <- xm
        """,
    "texts": r"""
        \text{June 9} <- June 19
        \text{June 9} <- 9
        Mr. Lee <- Mrs. Lee
        José <- Jose
        東京 <- 京都
        \text{Ben and Amy} <- Ben
        """,
    "times": r"""
        16:45 <- 4:45 a.m.
        16:45 <- 4:46 p.m.
        9 a.m. <- 9 p.m.
        9 a.m. <- 9
        noon <- midnight
        """,
    "Markdown": r"""
        23 <- 2**3
        12 <- 1`2
        12 <- 1__2
        8 <- 2**3
        """,
    "numbers": r"""
        \frac{2}{9} <- 0.\overline{3}
        0.8\overline{3} <- 0.\overline{83}
        16\frac23\% <- 16\%
        347_8 <- (347)_9
        6 <- at least 6
        6 <- almost 6
        \emptyset <- \{0\}
        """,
    "typed without LaTeX": r"""
        \frac{\pi}{3} <- pi
        \sqrt{6} <- sqrt(5)
        2.5 \times 10^{-7} <- 2.5 x 10^{7}
        """,
}

#: gold answers that no completion can be compared with, by the kind that `why_unreadable` names
UNREADABLE = {
    "sentence": [
        "see the figure (a), (b)",
        "She has 5 apples and 2 pears",
        "$x$ is positive for all real numbers",
        "Proof omitted.",
        "Answers may vary",
        "The sum is 3 and the product is 4",
    ],
    "empty": ["", "  ", None],
    "size": ["9^{9^{9^9}}", "1" * 500],
    "computation": [r"\sum_{k=1}^{5} k"],
    "words": [r"\text{ab} + 3"],
    "notation": ["?", "7 2"],
}

#: gold, and the value that it says in words
SPOKEN = [
    ("The answer is 5", "5"),
    ("Answer: $\\frac12$", "1/2"),
    ("about 7", "7"),
    ("The least such $k$ is 34.", "34"),
    ("There are 12 ways", "12"),
    (r"We get \boxed{3} or \boxed{8}.", "3, 8"),
]


def pairs(table: dict[str, str]) -> list[tuple[str, str, str]]:
    """Kind, gold and said of each line."""
    found = []
    for kind, lines in table.items():
        for line in lines.strip().splitlines():
            gold, _, said = line.strip().partition(" <- ")
            found.append((kind, gold, said))
    return found
