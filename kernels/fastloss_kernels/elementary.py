"""Elementary functions in float64 that vectorise and give the same bits on every device.

Every function here is a `formula`: a branch-free scalar Python function made of `fma`, IEEE additions,
multiplications, divisions, selections and bit patterns, so a loop over it compiles to packed instructions and calls
no mathematics library, whose last digits differ between platforms. Run as plain Python it gives the bits of the
compiled code (NaN stays NaN; its payload is not promised). Each docstring states the largest error in units in the
last place (ULP; below 2⁻¹⁰²² one ULP is 2⁻¹⁰⁷⁴); `tests/test_elementary.py` holds it against a 50-digit oracle and
`docs/elementary.md` lists what was measured.

How the errors stay near half an ULP: a result is `hi + lo`, where `lo` holds the rounding error of `hi`,
and the polynomial with its roundings enters only through `lo`. A product that feeds a sum is written as `fma`, so
no compiler has anything left to contract.

Integer work stays within what AVX2 has: no conversion between float64 and int64 and no arithmetic shift. An integer
travels in the low bits of a float64 instead: adding 1.5·2⁵² rounds to an integer and leaves it there.

The coefficient tables, constant term first, are the output of `kernels/derive_coefficients.py`.
"""

from __future__ import annotations

from typing import Final

from fastloss_kernels.jit import divide, float64_bits, float64_from_bits, fma, formula

INFINITY: Final = float("inf")
NAN: Final = float("nan")

# (exp(r) − 1 − r)/r² for |r| ≤ log(2)/2.
EXP: Final = (
    0.5000000000000009,
    0.16666666666666632,
    0.04166666666654507,
    0.008333333333352537,
    0.0013888888939798635,
    0.00019841269815035062,
    2.4801496936405306e-05,
    2.755731050962127e-06,
    2.7628929715991107e-07,
    2.5087366176277875e-08,
)
# (2·atanh(s) − 2s)/s³ in z = s², where s = f/(2 + f) and 1 + f lies in [√½, √2].
LOG: Final = (
    0.6666666666666734,
    0.399999999994167,
    0.2857142874200829,
    0.22222198607472704,
    0.18183562712373544,
    0.15314088646446303,
    0.14795593306745794,
)
# The same for f in [−1/4, 1/2].
LOG1P_UNIT: Final = (
    0.666666666666666,
    0.40000000000056435,
    0.28571428555916917,
    0.2222222428439313,
    0.18181666679795885,
    0.1539108384997147,
    0.13174094193293323,
    0.13839573650052125,
)
# (lgamma(2 + w) − (1 − γ)·w)/w² for |w| ≤ 1/2.
LGAMMA_2: Final = (
    0.3224670334241133,
    -0.06735230105319646,
    0.020580808427765128,
    -0.0073855510288851536,
    0.0028905103318940402,
    -0.0011927539023488842,
    0.0005096694937064256,
    -0.0002231549585359255,
    9.945796375773926e-05,
    -4.4923876569128627e-05,
    2.050339141958827e-05,
    -9.455625141143678e-06,
    4.3941927416399936e-06,
    -1.975869458935703e-06,
    8.983395870764171e-07,
    -5.796257797450681e-07,
    2.9919613564739865e-07,
)
# x·(lgamma(x) − (x − 1/2)·(log x − 1) − (log 2π − 1)/2) in y = 1/x² for x ≥ 5/2.
STIRLING: Final = (
    0.08333333333332603,
    -0.0027777777751870646,
    0.0007936504505594631,
    -0.0005952141395415901,
    0.0008407248804265939,
    -0.0018881106279226088,
    0.0058099362032688045,
    -0.02034388912157508,
    0.06647308853368647,
    -0.1698933954182647,
    0.2834949181647792,
    -0.22451694344563075,
)

# Constants in two parts: the sum of both carries at least 85 bits. The high part of log 2 ends in 20 zero bits, so
# its product with an exponent is exact.
LOG2_HIGH: Final = 0.6931471806019545
LOG2_LOW: Final = -4.2009150726810846e-11
ONE_MINUS_EULER_HIGH: Final = 0.42278433509846713
ONE_MINUS_EULER_LOW: Final = 4.942915152430645e-18
STIRLING_CONSTANT_HIGH: Final = 0.4189385332046727
STIRLING_CONSTANT_LOW: Final = 1.6728209650585413e-17
INVERSE_LOG2: Final = 1.4426950408889634

# 1.5·2⁵²: the unit of a sum with it is 1, for sums of either sign.
ROUND: Final = 6755399441055744.0
TWO_52: Final = 4503599627370496.0
TWO_54: Final = 18014398509481984.0
SMALLEST_NORMAL: Final = 2.2250738585072014e-308
# The smallest x whose log Γ(x) rounds to infinity.
LGAMMA_OVERFLOW: Final = 2.5599833278516387e305
# Below it x² is no longer seen beside x.
TINY: Final = 5.551115123125783e-17

# The largest error of each function over its whole domain, in ULP.
ULP_BOUNDS: Final = {
    "exp": 0.9,
    "expm1": 1.3,
    "log": 0.8,
    "log1p": 0.9,
    "log1p_unit": 0.9,
    "tanh": 1.5,
    "sigmoid": 1.6,
    "softplus": 1.6,
    "log_sigmoid": 1.6,
    "lgamma": 3.5,
}

SIGN_BIT: Final = -0x8000_0000_0000_0000
EXPONENT_BITS: Final = 0x7FF0_0000_0000_0000
SIGNIFICAND_BITS: Final = 0x000F_FFFF_FFFF_FFFF
TWO_52_BITS: Final = 0x4330_0000_0000_0000
SQRT_HALF_BITS: Final = 0x3FE6_A09E_667F_3BCD
# Moves the step between two exponents from 1 to √½.
ONE_LESS_SQRT_HALF_BITS: Final = 0x3FF0_0000_0000_0000 - SQRT_HALF_BITS


@formula
def exp_tail(r: float) -> float:
    """Compute (exp(r) − 1 − r)/r² for |r| ≤ log(2)/2."""
    q = fma(EXP[9], r, EXP[8])
    q = fma(q, r, EXP[7])
    q = fma(q, r, EXP[6])
    q = fma(q, r, EXP[5])
    q = fma(q, r, EXP[4])
    q = fma(q, r, EXP[3])
    q = fma(q, r, EXP[2])
    q = fma(q, r, EXP[1])
    return fma(q, r, EXP[0])


@formula
def exp(x: float) -> float:
    """Compute eˣ for every x, through the subnormals to 0 and up to infinity, to 0.9 ULP.

    Notes
    -----
    x = k·log 2 + r with |r| ≤ log(2)/2; eˣ = 2ᵏ·(1 + r + r²·q(r)). The factor 2ᵏ is applied as two factors of about
    half the exponent, so only the last product can overflow or become subnormal, and rounds once. Every other product
    by them is exact, so it does not matter whether a compiler contracts it into a sum that follows.
    """
    x = -746.0 if x < -746.0 else x
    x = 710.0 if x > 710.0 else x
    rounded = fma(x, INVERSE_LOG2, ROUND)
    k = rounded - ROUND
    high = fma(k, -LOG2_HIGH, x)
    r = fma(k, -LOG2_LOW, high)
    hi = 1.0 + high
    p = hi + ((1.0 - hi) + high + fma(k, -LOG2_LOW, (r * r) * exp_tail(r)))
    # k + 2046 in the low bits is the sum of the exponent fields of both factors, ⌊·/2⌋ and ⌈·/2⌉ the fields.
    lower = float64_from_bits((float64_bits(rounded + 2046.0) & -2) << 51)
    upper = float64_from_bits((float64_bits(rounded + 2047.0) & -2) << 51)
    return p * lower * upper


@formula
def exp_of_parts(x: float, x_lo: float) -> float:
    """Compute exp(x + x_lo) for x ≤ 709 and what its rounding lost, to 1 ULP; the method is `exp`'s."""
    x = -746.0 if x < -746.0 else x
    rounded = fma(x, INVERSE_LOG2, ROUND)
    k = rounded - ROUND
    high = fma(k, -LOG2_HIGH, x)
    low = fma(k, -LOG2_LOW, x_lo)
    r = high + low
    hi = 1.0 + high
    p = hi + ((1.0 - hi) + high + fma(r * r, exp_tail(r), low))
    lower = float64_from_bits((float64_bits(rounded + 2046.0) & -2) << 51)
    upper = float64_from_bits((float64_bits(rounded + 2047.0) & -2) << 51)
    return p * lower * upper


@formula
def expm1_parts(x: float) -> tuple[float, float]:
    """Compute (eˣ − 1)/2 for −40 ≤ x ≤ 710 as a sum hi + lo, rounded nowhere but in lo.

    Half of it, because its double overflows only where the result does.
    """
    rounded = fma(x, INVERSE_LOG2, ROUND)
    k = rounded - ROUND
    high = fma(k, -LOG2_HIGH, x)
    r = fma(k, -LOG2_LOW, high)
    tail = fma(k, -LOG2_LOW, (r * r) * exp_tail(r))
    scale = float64_from_bits(float64_bits(rounded + 1022.0) << 52)
    shift = scale - 0.5
    hi = fma(scale, high, shift)
    return hi, fma(scale, tail, fma(scale, high, shift - hi))


@formula
def expm1(x: float) -> float:
    """Compute eˣ − 1 for every x, to 1.3 ULP; relative accuracy and the sign of zero hold for tiny x."""
    bounded = -40.0 if x < -40.0 else x
    bounded = 710.0 if bounded > 710.0 else bounded
    hi, lo = expm1_parts(bounded)
    return x if abs(x) < TINY else (hi + lo) * 2.0


@formula
def tanh(x: float) -> float:
    """Compute the hyperbolic tangent for every x, to 1.5 ULP; odd to the bit, the sign of zero included.

    Notes
    -----
    tanh |x| = −m/(2 + m) with m = exp(−2|x|) − 1, which is accurate where |x| is small.
    """
    exponent = -2.0 * abs(x)
    hi, lo = expm1_parts(-40.0 if exponent < -40.0 else exponent)
    half = hi + lo
    denominator = 1.0 + half
    quotient = divide(half, denominator)
    # Both sums lost something, and one part in 1/denominator = 1 − quotient gives it back.
    half_lost = (hi - half) + lo
    denominator_lost = ((1.0 - denominator) + hi) + lo
    magnitude = abs(fma(fma(-quotient, denominator_lost, half_lost), 1.0 - quotient, quotient))
    magnitude = abs(x) if abs(x) < TINY else magnitude
    return float64_from_bits(float64_bits(magnitude) | (float64_bits(x) & SIGN_BIT))


@formula
def log_parts(k: float, f: float, s: float, tail: float, rest: float) -> tuple[float, float]:
    """Compute k·log 2 + log(1 + f) + rest as a sum hi + lo, rounded nowhere but in lo.

    Here s = f/(2 + f) and s·tail = 2·atanh(s) − 2s, so log(1 + f) = f − f²/2 + s·(f²/2 + tail).
    """
    half = 0.5 * f
    hi = fma(k, LOG2_HIGH, f)
    lost = fma(k, LOG2_HIGH, -hi) + f
    return hi, lost + fma(-half, f, fma(s, fma(half, f, tail), fma(k, LOG2_LOW, rest)))


@formula
def log_tail(z: float) -> float:
    """Compute (2·atanh(s) − 2s)/s for z = s² ≤ 0.0295."""
    q = fma(LOG[6], z, LOG[5])
    q = fma(q, z, LOG[4])
    q = fma(q, z, LOG[3])
    q = fma(q, z, LOG[2])
    q = fma(q, z, LOG[1])
    return z * fma(q, z, LOG[0])


@formula
def positive_log_parts(x: float) -> tuple[float, float]:
    """Compute log x for 0 < x < ∞ as a sum hi + lo, rounded nowhere but in lo."""
    subnormal = x < SMALLEST_NORMAL
    scaled = x * TWO_54 if subnormal else x
    bits = float64_bits(scaled) + ONE_LESS_SQRT_HALF_BITS
    # The exponent field in the low bits of a float64 of 2⁵².
    field = float64_from_bits(((bits & EXPONENT_BITS) >> 52) | TWO_52_BITS)
    k = field - (TWO_52 + 1077.0 if subnormal else TWO_52 + 1023.0)
    f = float64_from_bits((bits & SIGNIFICAND_BITS) + SQRT_HALF_BITS) - 1.0
    s = divide(f, 2.0 + f)
    return log_parts(k, f, s, log_tail(s * s), 0.0)


@formula
def log(x: float) -> float:
    """Compute the natural logarithm of x, to 0.8 ULP; −∞ at ±0, NaN below, ∞ at ∞.

    Notes
    -----
    x = 2ᵏ·(1 + f) with 1 + f in [√½, √2], subnormal x scaled up first.
    """
    finite = x < INFINITY
    hi, lo = positive_log_parts(x if finite else 1.0)
    value = hi + lo if finite else x
    value = value if x != 0.0 else -INFINITY
    return NAN if x < 0.0 else value


@formula
def log1p(x: float) -> float:
    """Compute log(1 + x), to 0.9 ULP; −∞ at −1, NaN below; relative accuracy and the sign of zero hold for tiny x.

    Notes
    -----
    1 + x = u + c, where c is what the sum lost; log(1 + x) = log u + c/u, and c/u needs few digits.
    """
    u = 1.0 + x
    greater = x if x > 1.0 else 1.0
    lesser = 1.0 if x > 1.0 else x
    lost = lesser - (u - greater)
    finite = u < INFINITY
    bits = float64_bits(u if finite else 1.0) + ONE_LESS_SQRT_HALF_BITS
    exponent = bits & EXPONENT_BITS
    k = float64_from_bits((exponent >> 52) | TWO_52_BITS) - (TWO_52 + 1023.0)
    f = float64_from_bits((bits & SIGNIFICAND_BITS) + SQRT_HALF_BITS) - 1.0
    s = divide(f, 2.0 + f)
    # 2¹⁻ᵏ, which exists for the largest k, and (1 − s)²/2, which is 1/(2 + 2f) to within 3 %.
    scale = float64_from_bits(0x7FF0_0000_0000_0000 - exponent)
    rest = (lost * scale) * fma(s, fma(s, 0.5, -1.0), 0.5)
    hi, lo = log_parts(k, f, s, log_tail(s * s), rest)
    value = hi + lo if finite else x
    value = value if u != 0.0 else -INFINITY
    value = NAN if u < 0.0 else value
    return x if abs(x) < TINY else value


@formula
def log1p_of_parts(x: float, x_lo: float) -> float:
    """Compute log(1 + x + x_lo) for x ≥ 0 and what its rounding lost, to 0.9 ULP; the method is `log1p`'s."""
    u = 1.0 + x
    greater = x if x > 1.0 else 1.0
    lesser = 1.0 if x > 1.0 else x
    lost = (lesser - (u - greater)) + x_lo
    finite = u < INFINITY
    bits = float64_bits(u if finite else 1.0) + ONE_LESS_SQRT_HALF_BITS
    exponent = bits & EXPONENT_BITS
    k = float64_from_bits((exponent >> 52) | TWO_52_BITS) - (TWO_52 + 1023.0)
    f = float64_from_bits((bits & SIGNIFICAND_BITS) + SQRT_HALF_BITS) - 1.0
    s = divide(f, 2.0 + f)
    scale = float64_from_bits(0x7FF0_0000_0000_0000 - exponent)
    rest = (lost * scale) * fma(s, fma(s, 0.5, -1.0), 0.5)
    hi, lo = log_parts(k, f, s, log_tail(s * s), rest)
    value = hi + lo if finite else x
    return x if x < TINY else value


@formula
def log1p_unit_tail(z: float) -> float:
    """Compute (2·atanh(s) − 2s)/s for z = s² ≤ 1/25."""
    q = fma(LOG1P_UNIT[7], z, LOG1P_UNIT[6])
    q = fma(q, z, LOG1P_UNIT[5])
    q = fma(q, z, LOG1P_UNIT[4])
    q = fma(q, z, LOG1P_UNIT[3])
    q = fma(q, z, LOG1P_UNIT[2])
    q = fma(q, z, LOG1P_UNIT[1])
    return z * fma(q, z, LOG1P_UNIT[0])


@formula
def log1p_unit(t: float) -> float:
    """Compute log(1 + t) for 0 ≤ t ≤ 1, to 0.9 ULP, for less than `log1p` costs; NaN stays NaN.

    Notes
    -----
    Above 1/2, where t − 1 is exact, 1 + t = 2·(1 + f) with f = (t − 1)/2; below, f = t.
    """
    upper = t > 0.5
    f = fma(t, 0.5, -0.5) if upper else t
    k = 1.0 if upper else 0.0
    s = divide(f, 2.0 + f)
    hi, lo = log_parts(k, f, s, log1p_unit_tail(s * s), 0.0)
    return hi + lo


@formula
def softplus(x: float) -> float:
    """Compute log(1 + eˣ) for every x, to 1.6 ULP, down to where it equals eˣ and is subnormal."""
    return (x if x > 0.0 else 0.0) + log1p_unit(exp(-abs(x)))


@formula
def log_sigmoid(x: float) -> float:
    """Compute log(1/(1 + e⁻ˣ)) = −softplus(−x) for every x, to 1.6 ULP; −0 at ∞."""
    return -softplus(-x)


@formula
def sigmoid(x: float) -> float:
    """Compute 1/(1 + e⁻ˣ) for every x, to 1.6 ULP, down to where it equals eˣ and is subnormal."""
    e = exp(-abs(x))
    denominator = 1.0 + e
    lost = (1.0 - denominator) + e
    quotient = divide(1.0 if x >= 0.0 else e, denominator)
    remainder = fma(-quotient, denominator, 1.0 if x >= 0.0 else e)
    return quotient + fma(-quotient, lost, remainder)


@formula
def sigmoids(e: float) -> tuple[float, float]:
    """Compute 1/(1 + e) rounded once and e/(1 + e), for e = exp(−|x|): σ(|x|) and σ(−|x|), whose product is σ′(x)."""
    total = 1.0 + e
    lost = (1.0 - total) + e
    likely = divide(1.0, total)
    likely = fma(likely, fma(-likely, lost, fma(-likely, total, 1.0)), likely)
    return likely, e * likely


@formula
def lgamma_2_tail(w: float) -> float:
    """Compute (log Γ(2 + w) − (1 − γ)·w)/w² for |w| ≤ 1/2."""
    q = fma(LGAMMA_2[16], w, LGAMMA_2[15])
    q = fma(q, w, LGAMMA_2[14])
    q = fma(q, w, LGAMMA_2[13])
    q = fma(q, w, LGAMMA_2[12])
    q = fma(q, w, LGAMMA_2[11])
    q = fma(q, w, LGAMMA_2[10])
    q = fma(q, w, LGAMMA_2[9])
    q = fma(q, w, LGAMMA_2[8])
    q = fma(q, w, LGAMMA_2[7])
    q = fma(q, w, LGAMMA_2[6])
    q = fma(q, w, LGAMMA_2[5])
    q = fma(q, w, LGAMMA_2[4])
    q = fma(q, w, LGAMMA_2[3])
    q = fma(q, w, LGAMMA_2[2])
    q = fma(q, w, LGAMMA_2[1])
    return fma(q, w, LGAMMA_2[0])


@formula
def stirling_tail(y: float) -> float:
    """Compute x·(log Γ(x) − (x − 1/2)·(log x − 1) − (log 2π − 1)/2) in y = 1/x² for x ≥ 5/2."""
    q = fma(STIRLING[11], y, STIRLING[10])
    q = fma(q, y, STIRLING[9])
    q = fma(q, y, STIRLING[8])
    q = fma(q, y, STIRLING[7])
    q = fma(q, y, STIRLING[6])
    q = fma(q, y, STIRLING[5])
    q = fma(q, y, STIRLING[4])
    q = fma(q, y, STIRLING[3])
    q = fma(q, y, STIRLING[2])
    q = fma(q, y, STIRLING[1])
    return fma(q, y, STIRLING[0])


@formula
def lgamma(x: float) -> float:
    """Compute log Γ(x) for x > 0, to 3.5 ULP, near its zeros 1 and 2 as well; ∞ at ±0 and ∞, NaN below 0.

    Notes
    -----
    Above 5/2 by Stirling's series with its tail refitted:
    (x − 1/2)·(log x − 1) + (log 2π − 1)/2 + S(1/x²)/x, in which nothing cancels. Below, from the zero at 2:
    log Γ(2 + w) = (1 − γ)·w + w²·Q(w) for |w| ≤ 1/2, and Γ(x + 1) = x·Γ(x) once or twice for smaller x.
    """
    magnitude = abs(x)
    finite = magnitude < LGAMMA_OVERFLOW
    above = magnitude > 2.5
    argument = magnitude if magnitude > 0.5 else fma(magnitude, magnitude, magnitude)
    argument = 1.0 if magnitude > 1.5 else argument
    argument = magnitude if above else argument
    hi, lo = positive_log_parts(argument if finite else 1.0)

    w = magnitude - 1.0 if magnitude > 0.5 else magnitude
    w = magnitude - 2.0 if magnitude > 1.5 else w
    w = 0.0 if above else w
    q = lgamma_2_tail(w)
    near = fma(w, ONE_MINUS_EULER_HIGH, -hi) + fma(w * w, q, fma(w, ONE_MINUS_EULER_LOW, -lo))

    far_x = magnitude if above else 2.5
    inverse = divide(1.0, far_x)
    y = inverse * inverse
    q = stirling_tail(y)
    half_less = far_x - 0.5
    rest = fma(inverse, q, fma(half_less, lo, STIRLING_CONSTANT_LOW))
    far = fma(half_less, hi - 1.0, STIRLING_CONSTANT_HIGH + rest)

    value = far if above else near
    value = value if finite else x + INFINITY
    value = value if x != 0.0 else INFINITY
    return NAN if x < 0.0 else value
