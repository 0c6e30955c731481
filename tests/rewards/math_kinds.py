r"""More kinds of answers for `math_answer`: `gold <- said`, the same under `SAME` and not under `OTHER`.

`[[` and `]]` stand for the beginning and end of `cases`.
"""

from __future__ import annotations

SAME = {
    "congruences": r"""
        x \equiv 4 \pmod{9} <- x = 9k+4
        x \equiv 4 \pmod{9} <- x = 9t-5, t \in \mathbb{Z}
        x \equiv 4 \pmod 9 <- 13 \pmod{9}
        2 \pmod{5} <- 2 (mod 5)
        n \equiv 1 \pmod{6} <- n ≡ -5 (mod 6)
        x = 9k+4 <- x\equiv 4\pmod 9
        x \equiv 1, 3 \pmod{4} <- x \equiv 1 \pmod 2
        x \equiv \pm 2 \pmod{11} <- x \equiv 9 \pmod{11} \text{ or } x \equiv 2 \pmod{11}
        x\equiv 1\pmod 2, x\equiv 2\pmod 3 <- x\equiv 2\pmod 3, x\equiv 1\pmod 2
        3 \bmod 8 <- 3 \pmod 8
        x \equiv 2 \pmod{3} <- x \equiv 2 \ (\mathrm{mod}\ 3)
        n=4k+1 \text{ or } n=4k+2 \text{ or } n=4k+3 <- n \not\equiv 0 \pmod 4
        """,
    "families": r"""
        (-1)^k \frac{\pi}{3}+k\pi <- (-1)^n\frac{\pi}{3} + n\pi
        x=(-1)^k\frac{\pi}{3}+k\pi <- x = \frac{\pi}{3}+2n\pi, x = \frac{2\pi}{3}+2n\pi, n\in\mathbb{Z}
        \frac{\pi}{8}+\frac{k\pi}{2} <- \frac{\pi}{8}+\pi n, \frac{5\pi}{8}+\pi n, n\in\mathbb{Z}
        x = 30^\circ + 360^\circ k <- x = \frac{\pi}{6}+2\pi n, n \in \mathbb{Z}
        6n+1, 6n+5, n\in\mathbb{Z} <- 6k\pm1, k\in\mathbb{Z}
        """,
    "set builders": r"""
        \{5k+2 | k \in \mathbb{Z}\} <- \{5n-3 \mid n \in \mathbb{Z}\}
        \{5k+2 | k \in \mathbb{Z}\} <- x=5n+2, n\in\mathbb{Z}
        \{x \mid x = 3k, k\in\mathbb{Z}\} <- \{3n : n\in\mathbb{Z}\}
        \left\{\frac{\pi}{7}+k\pi \mid k \in \mathbb{Z}\right\} <- \frac{\pi}{7}+n\pi, n\in\mathbb{Z}
        \{n^3 : n \in \mathbb{N}\} <- \{k^3 \mid k \in \mathbb{N}\}
        \{(2t, t) : t \in \mathbb{R}\} <- \{(2s,s) \mid s \in \mathbb{R}\}
        """,
}

MORE_SAME = {
    "functions by cases": r"""
        |x| <- [[x & x\ge 0 \\ -x & x<0]]
        |x-3| <- [[3-x & \text{if } x \leq 3 \\ x-3 & \text{otherwise}]]
        [[x+a & x > 1 \\ 0 & \text{otherwise}]] <- [[0, & x \le 1 \\ a+x, & 1<x]]
        [[2 & n=1 \\ 2n+1 & n \ge 2]] <- [[2n+1, & n \geq 2, \\ 2, & n = 1.]]
        [[1 & n \text{ even} \\ -1 & n \text{ odd}]] <- (-1)^n
        [[3k & \text{if } k \text{ is odd} \\ k & k \text{ even}]] <- [[k & k\equiv 0\pmod 2 \\ 3k & \text{otherwise}]]
        g(t)=[[t^2 & t<2 \\ 4 & t\ge 2]] <- [[t^2 & t \le 2 \\ 4 & t > 2]]
        f(x)=\left\{\begin{array}{ll} 1 & x>0 \\ 0 & x\le 0\end{array}\right. <- [[1 \text{ if } x>0 \\ 0 & x\le 0]]
        """,
    "letters of units": r"""
        60 <- 60 K
        60 <- 60\text{ K}
        60\text{ K} <- 60
        60 \text{ K} <- 60 kelvin
        60 K <- 60\,\mathrm{K}
        5\text{ A} <- 5 A
        5\text{ A} <- 5\text{ amperes}
        5\text{ A} <- 5
        5\text{ A} <- 5000\text{ mA}
        2\pi K <- 2K\pi
        \frac{3}{4} K <- \frac{3K}{4}
        """,
    "differences of sets": r"""
        (-\infty,2)\cup(2,\infty) <- \mathbb{R}-\{2\}
        [1,2)\cup(2,3] <- [1,3]-\{2\}
        """,
    "currencies": r"""
        60 <- \text{Rs. }60
        \text{Rs. }1,250 <- 1250 rupees
        35 <- \mathrm{USD}\ 35
        \text{EUR } 35 <- €35
        35¢ <- \$0.35
        35\text{ cents} <- 35\,¢
        35\text{¢} <- 35
        £35 <- 35 GBP
        35 <- 35 CHF
        35 <- \text{US\$}35
        35 <- 35 US dollars
        """,
    "products": r"""
        xyz <- zxy
        abd <- dab
        rt <- tr
        3pq <- 3qp
        """,
    "largest and smallest": r"""
        \max\{p,q\} <- \max(q,p)
        \max\left(\frac{p}{2}, q\right) <- \max\left\{q,\frac{p}{2}\right\}
        \min\{2n, m\} <- \min(m, 2n)
        \min(m,n) <- \operatorname{min}\{n, m\}
        """,
    "vectors": r"""
        \vec{v} <- \vec v
        \vec{PQ} <- \overrightarrow{PQ}
        \mathbf{v} <- \vec{v}
        2\vec{a}-\vec{b} <- -\mathbf{b}+2\mathbf{a}
        5\mathbf{i}-\mathbf{j} <- 5\hat{i}-\hat{j}
        \langle 3,0,-2 \rangle <- 3\mathbf{i}-2\mathbf{k}
        (5,-1) <- 5\hat{i}-\hat{j}
        5\hat{\mathbf{i}}-\hat{\mathbf{j}} <- 5\vec{i}-\vec{j}
        \frac{2}{3}\overrightarrow{PQ}-\overrightarrow{PR} <- -\vec{PR}+\frac{2}{3}\vec{PQ}
        """,
    "chains": r"""
        p<q<r <- r>q>p
        p \le q < 2r <- 2r > q \ge p
        f(0)<f(2)<f(1) <- f(1)>f(2)>f(0)
        2<x<7 <- (2,7)
        """,
}
MORE_OTHER = {
    "letters of units": r"""
        5\text{ A} <- 5\text{ V}
        5\text{ A} <- 5\text{ W}
        5\text{ V} <- 5\text{ A}
        5\text{ A} <- 5 V
        60\text{ K} <- 60\text{ J}
        60\text{ K} <- 60^\circ\text{C}
        60\text{ K} <- 61 K
        2 <- 2A
        2K <- 2
        60000 <- 60 K
        """,
    "differences of sets": r"""
        (-\infty,2)\cup(2,\infty) <- \mathbb{R}-\{3\}
        [1,2)\cup(2,3] <- [1,3]-\{3\}
        3 <- 5-2
        """,
    "functions by cases": r"""
        |x| <- [[-x & x\ge 0 \\ x & x<0]]
        |x-3| <- [[3-x & x \leq 2 \\ x-3 & \text{otherwise}]]
        |x| <- [[x & x>0 \\ -x & x<0]]
        [[x+a & x > 1 \\ 0 & \text{otherwise}]] <- [[0 & x < 1 \\ a+x & x \ge 1]]
        [[x+a & x > 1 \\ 0 & \text{otherwise}]] <- [[x+b & x > 1 \\ 0 & \text{otherwise}]]
        [[2 & n=1 \\ 2n+1 & n \ge 2]] <- 2n+1
        [[1 & n \text{ even} \\ -1 & n \text{ odd}]] <- [[1 & n \text{ odd} \\ -1 & n \text{ even}]]
        [[t^2 & t<2 \\ 4 & t\ge 2]] <- t^2
        [[x & x<2 \\ 4 & x\ge 2]] <- [[y & y<2 \\ 4 & y\ge 2]]
        f(x)=[[1 & x>0 \\ 0 & x\le 0]] <- g(x)=[[1 & x>0 \\ 0 & x\le 0]]
        """,
    "currencies": r"""
        \text{Rs. }60 <- \$60
        35¢ <- \$35
        \text{EUR } 35 <- £35
        35 <- \text{Rs. }3.5
        """,
    "products": r"""
        xyz <- xy
        ABC <- CAB
        rt <- ts
        """,
    "largest and smallest": r"""
        \max\{p,q\} <- \min\{p,q\}
        \max\{p,q\} <- \{p,q\}
        \max\{p,q\} <- \max\{p,r\}
        """,
    "vectors": r"""
        \vec{v} <- v
        \vec{PQ} <- \vec{QP}
        \vec{PQ} <- PQ
        (3,0,-2) <- 3\mathbf{i}-2\mathbf{j}
        (3,-2) <- (1+2)\mathbf{i}-2\mathbf{j}
        2\vec{a}-\vec{b} <- 2\mathbf{b}-\mathbf{a}
        5\mathbf{i}-\mathbf{j} <- 5\hat{i}+\hat{j}
        """,
    "chains": r"""
        p<q<r <- p>q>r
        p<q<r <- p<r<q
        p<q<r <- p<q\le r
        p<q<r <- p<q
        2<x<7 <- 2>x>7
        """,
}

SENTENCES = {
    "same": r"""
        26 <- There are $26$ such triples
        7 <- He has 7 marbles left.
        19 <- \text{Sam needs 19 more stickers.}
        11 <- They will need 11 days to paint the house
        45 <- Nora earns \$45 every weekend.
        \frac{2}{9} <- The probability equals $\frac{2}{9}$ here
        310 <- \text{They collected } 310 \text{ cans altogether}
        1.5\text{ hours} <- The film lasts 90 minutes.
        29 <- Pia read 29 books in May
        29\% <- She saved 29% of her salary
        Yes <- \text{Yes, it has 7 sides}
        4 <- There will be 4 sweets left over
        3,400 <- The club raised 3,400 dollars
        There are $26$ such triples <- 26
        He has 7 marbles left. <- 7
        """,
    "other": r"""
        26 <- There are 26 or 27 such triples
        26 <- There are not 26 such triples
        26 <- There might be 26 such triples
        26 <- There are at least 26 such triples
        26 <- There are more than 26 such triples
        7 <- He has 7 marbles and 2 balls left
        7 <- He has 7 marbles and two balls left
        7 <- He doesn't have 7 marbles left
        7 <- If he had 7 marbles he would stop
        7 <- He has 7 times as many marbles
        7 <- He has half of 7 marbles
        7 <- He has 7 dozen marbles
        7 <- He has 7x marbles
        7 <- He has solved part 7
        7 <- It was finished on May 7
        7 <- The number is a multiple of 7
        7 km north <- He walked 7 km south
        7 steps right <- He moved 7 steps left
        \$7 profit <- He lost \$7
        7 <- She finished in place 7
        7 <- Has he got 7 marbles?
        7 <- He has 7 + 2 marbles
        There are $26$ such triples <- 27
        """,
}

#: completion | gold | score
OFFERED = r"""
    \boxed{34} is wrong | 34 | 0
    \(\boxed{34}\) is not correct. | 34 | 0
    $\boxed{34}$ is not the answer. | 34 | 0
    \boxed{34}. This is incorrect. | 34 | 0
    The answer is not \boxed{34} | 34 | 0
    The answer is clearly not $\boxed{34}$. | 34 | 0
    The wrong answer is \boxed{34}. | 34 | 0
    It cannot be \boxed{34} | 34 | 0
    \boxed{34}. No, \boxed{34} is wrong. | 34 | 0
    The answer is 34. But \boxed{34} is wrong. | 34 | 0
    <answer>\boxed{34} is wrong</answer> | 34 | 0
    \boxed{34}, but this is wrong. | 34 | 0
    \boxed{34} would be wrong. | 34 | 0
    I don't think it is \boxed{34}. | 34 | 0
    I don't think 35 is right. It is \boxed{34}. | 34 | 1
    The answer is 34. That is wrong. | 34 | 0
    The answer is $34$, which is wrong. | 34 | 0
    The wrong answer is 34. | 34 | 0
    The answer is 35, which is wrong. The answer is 34. | 34 | 1
    The answer is 34, which is right. | 34 | 1
    \boxed{35} is wrong. It is \boxed{34}. | 34 | 1
    \boxed{34}, and \boxed{35} is wrong. | 34 | 1
    The answer is not 35 but \boxed{34}. | 34 | 1
    The answer is not 35. It is \boxed{34}. | 34 | 1
    \boxed{34} is not 35, which is wrong. | 34 | 1
    Step \boxed{3} is wrong. | 3 | 1
    Option \boxed{B} is incorrect. | B | 1
    Answer: 34 (since 30+4=34) | 34 | 1
    Answer: 35 (since 30+4=34) | 34 | 0
    The answer is 34 (thirty-four). | 34 | 1
    The answer is 14 (Fourteen). | 14 | 1
    The answer is 34 (forty-three). | 34 | 0
    The answer is 34 (base 5). | 34 | 0
    The answer is 34, not 35. | 34 | 1
    The answer is **34** (not 35). | 34 | 1
    The answer is 35, not 34. | 34 | 0
    The answer is 34, 35. | 34 | 0
    Answer: $5$ / $9$ | 5 | 0
    Answer: $5$ / $9$ | 5/9 | 0
    Answer: $5$ / $9$ | 5, 9 | 1
    Answer: \(5\) / \(9\) | 9, 5 | 1
    The answer is $5$ to $9$. | 5 | 0
    The answer is $5$ vs $9$. | 5 | 0
    The answer is $5$ - $9$. | 5 | 0
    Final answer: $5$ ($9$) | 5 | 0
    Final answer: $\frac{1}{4}$ ($0.25$) | 1/4 | 1
    The answer is $5/9$. | 5/9 | 1
    The answer is $2.72$ to $2$ decimal places. | 2.72 | 1
    The answer is $2.72$ to 2 places. | 2.72 | 1
    Answer: $5$ - the smallest one | 5 | 1
    #### He has 7 marbles left. | 7 | 1
    The final answer is: There are $26$ such triples. | 26 | 1
    <answer>Sam needs 19 more stickers.</answer> | 19 | 1
    Final Answer: Nora earns $45 every weekend. | 45 | 1
    """

OTHER = {
    "congruences": r"""
        x \equiv 4 \pmod{9} <- x = 9k-4
        x \equiv 4 \pmod{9} <- x = 18k+4
        x \equiv 4 \pmod{9} <- 4
        4 <- 4 \pmod{9}
        x \equiv 4 \pmod{9} <- y \equiv 4 \pmod{9}
        x \equiv 4 \pmod{9} <- x \equiv 4 \pmod{18}
        x \equiv 1, 3 \pmod{8} <- x \equiv 1 \pmod{8}
        x \equiv \pm 2 \pmod{11} <- x \equiv 2 \pmod{11}
        n \not\equiv 0 \pmod 4 <- n \equiv 0 \pmod 4
        y = 2x+1 <- y \equiv 1 \pmod 2
        2x+1 <- 1 \pmod 2
        """,
    "families": r"""
        (-1)^k \frac{\pi}{3}+k\pi <- (-1)^{k+1} \frac{\pi}{3}+k\pi
        (-1)^k \frac{\pi}{3}+k\pi <- \frac{\pi}{3}+k\pi
        (-1)^k \frac{\pi}{3}+k\pi <- (-1)^k \frac{\pi}{3}+2k\pi
        \frac{\pi}{8}+\frac{k\pi}{2} <- \frac{\pi}{8}+k\pi
        6n+1, 6n+5, n\in\mathbb{Z} <- 6k+1, k\in\mathbb{Z}
        5k+2, k\in\mathbb{Z} <- 5k-3, k\in\mathbb{N}
        """,
    "set builders": r"""
        \{5k+2 | k \in \mathbb{Z}\} <- \{10k+2 | k \in \mathbb{Z}\}
        \{5k+2 | k \in \mathbb{Z}\} <- \{5k+2 | k \in \mathbb{N}\}
        \{5k+2 | k \in \mathbb{N}\} <- \{5k-3 | k \in \mathbb{N}\}
        \{n^3 : n \in \mathbb{N}\} <- \{n^2 : n \in \mathbb{N}\}
        \{(2t, t) : t \in \mathbb{R}\} <- \{(s,2s) \mid s \in \mathbb{R}\}
        \{x \mid x>0\} <- \{x^2+1 \mid x>0\}
        """,
    "letters of a gold answer": r"""
        4n <- 4m
        6k <- 6n
        4n <- 4 m
        4m <- 4n
        3s <- 3t
        """,
}
