"""Loops over a sparse histogram of scores: adding rows, adding another histogram, and counting pairs.

A bucket is the leading bits of a score, and its cell holds what fell into it, uint64 ``(2·n_digits,)``: the positive
mass and the weight. A mass is an exact non-negative fixed-point number, `n_digits` digits of 64 bits, the lowest
first; digit k of the window is digit ``low + k`` of a number that begins at 2^`LOWEST_EXPONENT`. Counts are the window
of the one digit `UNIT_DIGIT`. Carries are propagated at once, so a mass has one form only.

Cells lie in pages of 2^page_bits buckets of one slice; ``keys[page]`` is the bucket number of the page and the slice,
int64. One of two indexes finds pages. A table has an entry for every page that may be, those of a slice together:
uint16 ``(n_slices·2^table_bits,)``, 0 where there is none, else the number of a page and 1. Where that would be too
large, it is empty, and there is a hash table: int32 ``(n_slots,)``, a power of two, -1 where free, else the number of
a page. A cell whose weight is 0 is one that no row fell into.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastloss_kernels.exact_sum import LOWEST_EXPONENT
from fastloss_kernels.jit import compile_cpu, float64_bits, fma, formula, prefetch

UNIT_DIGIT = -LOWEST_EXPONENT >> 6
# Every mass leaves room for the sum of as many of its like.
LOG2_MOST_ROWS = 46
# One bucket holds all scores of a sign: the coarsest level.
MOST_DROPPED_BITS = 63

# Rows whose cells are looked up before any is added to.
BLOCK_ROWS = 1024

_FRACTION_MASK = 0x000F_FFFF_FFFF_FFFF
_HIDDEN_BIT = 0x0010_0000_0000_0000
_MAGNITUDE_MASK = 0x7FFF_FFFF_FFFF_FFFF
_LIMB_MASK = np.uint64(0xFFFF_FFFF)


@formula
def ordered_bits(score: float) -> int:
    """Return a score's bits as a signed integer whose order is that of the scores; −0 equals 0."""
    bits = float64_bits(score + 0.0)
    return bits ^ ((bits >> 63) & _MAGNITUDE_MASK)


@formula
def first_slot(bucket, position, mask):
    """Return the slot where the search for a record begins."""
    key = bucket + position * 0x1E37_79B9_7F4A_7C15
    # The middle bits of the product are those that depend on all of the key.
    return (((key ^ (key >> 32)) * 0x2545_F491_4F6C_DD1D) >> 24) & mask


@formula
def find_page(bucket, position, slots, keys):
    """Return the page of a slice, or −1, and the slot that holds it or is free for it."""
    mask = slots.shape[0] - 1
    slot = first_slot(bucket, position, mask)
    while True:
        page = np.int64(slots[slot])
        if page < 0 or (keys[page, 0] == bucket and keys[page, 1] == position):
            return page, slot
        slot = (slot + 1) & mask


@formula
def place_in_table(page, position, table_bits):
    """Return the entry of a slice's page; pages are numbered from the lowest negative score to the highest."""
    return (((position << 1) + 1) << (table_bits - 1)) + page


@formula
def find_in(page, position, table, table_bits, slots, keys):
    """Return the page of a slice, or −1, and the entry of the table or the hash table that holds it or is to."""
    if table.shape[0] > 0:
        place = place_in_table(page, position, table_bits)
        return np.int64(table[place]) - 1, place
    return find_page(page, position, slots, keys)


@formula
def take_page(bucket, position, counts, keys):
    """Return the next page, which becomes that of a slice's buckets."""
    page = counts[0]
    counts[0] += 1
    keys[page, 0], keys[page, 1] = bucket, position
    return page


@formula
def new_page(bucket, position, place, counts, table, slots, keys):
    """Return the next page, and enter it in the index."""
    page = take_page(bucket, position, counts, keys)
    if table.shape[0] > 0:
        table[place] = page + 1
    else:
        slots[place] = page
    return page


@formula
def is_unused(cells, digit, end):
    """Return whether a weight is 0, so that no row has fallen into its cell."""
    while digit < end and cells[digit] == np.uint64(0):
        digit += 1
    return digit == end


@formula
def count_cell(used, position, free, most, counts):
    """Count a cell that comes into use, unless there are as many as there may be; return whether it may."""
    if used[position] >= free:
        if counts[1] == most:
            counts[2] = 1
            return False
        counts[1] += 1
    used[position] += 1
    return True


@formula
def add_digit(digits, digit, end, value):
    """Add value·2^64·digit to the number whose digits end before `end`."""
    total = digits[digit] + value
    carry = total < value
    digits[digit] = total
    while carry:
        digit += 1
        if digit == end:
            return
        digits[digit] += np.uint64(1)
        carry = digits[digit] == np.uint64(0)


@formula
def subtract_digit(digits, digit, end, value):
    """Subtract value·2^64·digit from the number whose digits end before `end`."""
    borrow = digits[digit] < value
    digits[digit] -= value
    while borrow:
        digit += 1
        if digit == end:
            return
        borrow = digits[digit] == np.uint64(0)
        digits[digit] -= np.uint64(1)


@formula
def add_mass(digits, begin, end, low, term):
    """Add a float64 to the mass at ``digits[begin:end]``, exactly; its bits must lie in the window."""
    bits = float64_bits(term)
    exponent = (bits >> 52) & 0x7FF
    fraction = bits & _FRACTION_MASK
    if exponent == 0:
        exponent = 1
    else:
        fraction |= _HIDDEN_BIT
    position = exponent - 1075 - LOWEST_EXPONENT
    digit = begin + (position >> 6) - low
    shift = np.uint64(position & 63)
    lower = np.uint64(fraction) << shift
    upper = (np.uint64(fraction) >> np.uint64(1)) >> (np.uint64(63) - shift)
    if bits >= 0:
        if lower != np.uint64(0):
            add_digit(digits, digit, end, lower)
        if upper != np.uint64(0):
            add_digit(digits, digit + 1, end, upper)
    else:
        if lower != np.uint64(0):
            subtract_digit(digits, digit, end, lower)
        if upper != np.uint64(0):
            subtract_digit(digits, digit + 1, end, upper)


@formula
def bit_range(x):
    """Return the positions of the lowest and the highest set bit of a positive float64, from 2^`LOWEST_EXPONENT`."""
    bits = float64_bits(x)
    exponent = (bits >> 52) & 0x7FF
    fraction = bits & _FRACTION_MASK
    if exponent == 0:
        exponent = 1
    else:
        fraction |= _HIDDEN_BIT
    position = exponent - 1075 - LOWEST_EXPONENT
    # A power of two is exact as a float64, whose exponent is its logarithm.
    lowest = (float64_bits(np.float64(fraction & -fraction)) >> 52) - 1023
    highest = (float64_bits(np.float64(fraction)) >> 52) - 1023
    return position + lowest, position + highest


@functools.cache
def make_mass_bits() -> Callable[..., tuple[int, int]]:
    """Make ``mass_bits(label, weight) -> (lowest, highest)``: the bits that the rows' masses are made of.

    `label` float64 ``(n_rows,)`` in [0, 1]; `weight` float64, positive, ``(n_rows,)`` or empty where every weight
    is 1. Positions count from 2^`LOWEST_EXPONENT`; those of no rows are those of 1.
    """

    def mass_bits(label, weight):
        unit = -LOWEST_EXPONENT
        weighted = weight.shape[0] > 0
        lowest, highest = unit, unit
        for i in range(label.shape[0]):
            y = label[i]
            if weighted:
                least, most = bit_range(weight[i])
                lowest = min(lowest, least)
                highest = max(highest, most)
            else:
                least = unit
            if (y > 0.0) & (y < 1.0):
                lowest = min(lowest, least + bit_range(y)[0] - unit)
        # No term has bits below the smallest float64.
        return max(lowest, -1074 - LOWEST_EXPONENT), highest

    return compile_cpu(mass_bits)


@functools.cache
def make_fill_slots() -> Callable[..., None]:
    """Make ``fill_slots(keys, n_pages, slots)``: index different pages in slots that are all free."""

    def fill_slots(keys, n_pages, slots):
        for page in range(n_pages):
            _, slot = find_page(keys[page, 0], keys[page, 1], slots, keys)
            slots[slot] = page

    return compile_cpu(fill_slots)


@functools.cache
def make_add_scores() -> Callable[..., None]:
    """Make ``add_scores(score, label, weight, order, starts, positions, at, form, only, used, counts, table, …)``.

    The last three arguments are `slots`, `keys` and `cells`. It stops before a row for which there is no room: no page
    left, or as many cells in use as there may be.

    Scores and labels float64 ``(n_rows,)``, `weight` the same, or empty where every weight is 1. Rows
    ``order[starts[r]:starts[r + 1]]`` (an empty `order` is that of the rows) belong to slice ``positions[r]``; `at`
    int64 ``(2,)``, the run and the place in `order` to go on at, is moved. `form` int64 ``(8,)`` holds the dropped
    bits of a bucket, the window's lowest digit, the bits of a page, the cells that may be in use, the dropped bits of
    `only`, the digits of a mass, how many cells of a slice do not count among those that may be in use, and the table
    bits. `only` has a bit for each bucket, int64 words from the lowest bucket on, where rows of other buckets are left
    out; it is empty where all rows count. `used` int64 ``(n_slices,)``, the cells of each slice, is kept up, and so
    are `counts` int64 ``(3,)``: pages in use, cells that count, and a 1 where it stopped for there being as many as
    there may be. Cells are uint64
    ``(n_pages·2^page_bits·2·n_digits,)``.
    """

    def add_scores(
        score, label, weight, order, starts, positions, at, form, only, used, counts, table, slots, keys, cells
    ):
        weighted, ordered, filtered = weight.shape[0] > 0, order.shape[0] > 0, only.shape[0] > 0
        dropped, low, page_bits, most, only_dropped = form[0], form[1], form[2], form[3], form[4]
        n_digits, free, table_bits = form[5], form[6], form[7]
        unit, in_page = UNIT_DIGIT - low, (1 << page_bits) - 1
        for run in range(at[0], positions.shape[0]):
            position = positions[run]
            for k in range(max(at[1], starts[run]), starts[run + 1]):
                i = order[k] if ordered else k
                bits = ordered_bits(score[i])
                if filtered:
                    bucket = (bits >> only_dropped) + (1 << (63 - only_dropped))
                    if (only[bucket >> 6] >> (bucket & 63)) & 1 == 0:
                        continue
                bucket = bits >> dropped
                page, slot = find_in(bucket >> page_bits, position, table, table_bits, slots, keys)
                is_counted = page < 0
                if is_counted:
                    if counts[0] == keys.shape[0] or not count_cell(used, position, free, most, counts):
                        at[0], at[1] = run, k
                        return
                    page = new_page(bucket >> page_bits, position, slot, counts, table, slots, keys)
                begin = ((page << page_bits) + (bucket & in_page)) * 2 * n_digits
                middle, end = begin + n_digits, begin + 2 * n_digits
                # The loop over the digits costs more than all else, and the first one nearly always tells.
                is_new = cells[middle] == np.uint64(0) and not is_counted and is_unused(cells, middle, end)
                if is_new and not count_cell(used, position, free, most, counts):
                    at[0], at[1] = run, k
                    return
                y = label[i]
                if not weighted:
                    # Counts never carry, and adding 0 takes the place of a branch that no processor foresees.
                    cells[middle + unit] += np.uint64(1)
                    cells[begin + unit] += np.uint64(y == 1.0)
                    if (y > 0.0) & (y < 1.0):
                        add_mass(cells, begin, middle, low, y)
                    continue
                w = weight[i]
                add_mass(cells, middle, end, low, w)
                if y == 1.0:
                    add_mass(cells, begin, middle, low, w)
                elif y > 0.0:
                    # The product's rounding error is a float64 too, so that the two add up to the product.
                    product = w * y
                    add_mass(cells, begin, middle, low, product)
                    add_mass(cells, begin, middle, low, fma(w, y, -product))
        at[0] = positions.shape[0]

    return compile_cpu(add_scores)


@formula
def find_block(score, position, form, log2_words, counts, table, slots, keys, cells, begins):
    """Put where the cell of each row of a block begins into `begins`; return how many rows have a page.

    A page that is missing is made, as long as there is room. A cell has 2^log2_words words. A loop of its own for each
    step lets processors compute many rows at once, and fetch what the next loop reads or adds to.
    """
    dropped, page_bits = form[0], form[2]
    shift, in_page, words = np.uint64(page_bits), np.uint64((1 << page_bits) - 1), np.uint64(log2_words)
    if table.shape[0] > 0:
        zeroth = place_in_table(0, position, form[7])
        for i in range(score.shape[0]):
            begins[i] = np.uint64((ordered_bits(score[i]) >> dropped) + (zeroth << page_bits))
        for i in range(score.shape[0]):
            place = begins[i] >> shift
            page = np.uint64(table[place])
            if page == np.uint64(0):
                if counts[0] == keys.shape[0]:
                    return i
                page = np.uint64(take_page(np.int64(place) - zeroth, position, counts, keys) + 1)
                table[place] = page
            begin = ((page - np.uint64(1)) << shift | (begins[i] & in_page)) << words
            begins[i] = begin
            prefetch(cells, np.int64(begin))
        return score.shape[0]
    mask = slots.shape[0] - 1
    for i in range(score.shape[0]):
        bucket = ordered_bits(score[i]) >> dropped
        begins[i] = np.uint64(bucket)
        prefetch(slots, first_slot(bucket >> page_bits, position, mask))
    for i in range(score.shape[0]):
        bucket = np.int64(begins[i]) >> page_bits
        page, slot = find_page(bucket, position, slots, keys)
        if page < 0:
            if counts[0] == keys.shape[0]:
                return i
            page = take_page(bucket, position, counts, keys)
            slots[slot] = page
        begin = (np.uint64(page) << shift | (begins[i] & in_page)) << words
        begins[i] = begin
        prefetch(cells, np.int64(begin))
    return score.shape[0]


@functools.cache
def make_count_scores() -> Callable[..., None]:
    """Make ``count_scores(score, label, starts, positions, at, form, used, counts, table, slots, keys, cells)``.

    `add_scores` for rows in the order of their runs, of weight 1, whose labels are 0 or 1, where masses have one
    digit and every row counts. Scores are float64 or float32, labels int8. Where it stops for there being as many
    cells as there may be, pages may be left in which no cell is in use.
    """

    def count_scores(score, label, starts, positions, at, form, used, counts, table, slots, keys, cells):
        most, free = form[3], form[6]
        begins = np.empty(BLOCK_ROWS, dtype=np.uint64)
        one = np.uint64(1)
        for run in range(at[0], positions.shape[0]):
            position, end = positions[run], starts[run + 1]
            for first in range(max(at[1], starts[run]), end, BLOCK_ROWS):
                block = slice(first, min(first + BLOCK_ROWS, end))
                scores, labels = score[block], label[block]
                n_found = find_block(scores, position, form, 1, counts, table, slots, keys, cells, begins)
                for i in range(n_found):
                    begin = begins[i]
                    weight = cells[begin + one]
                    if weight == np.uint64(0) and not count_cell(used, position, free, most, counts):
                        n_found = i
                        break
                    cells[begin] += np.uint64(labels[i])
                    cells[begin + one] = weight + one
                if n_found < scores.shape[0]:
                    at[0], at[1] = run, first + n_found
                    return
        at[0] = positions.shape[0]

    return compile_cpu(count_scores)


@formula
def two_digits(x, low):
    """Return a positive float64, whose bits lie in a window of two digits from `low` on, as these digits."""
    bits = float64_bits(x)
    exponent = (bits >> 52) & 0x7FF
    fraction = np.uint64((bits & _FRACTION_MASK) | (_HIDDEN_BIT if exponent > 0 else 0))
    position = max(exponent, 1) - 1075 - LOWEST_EXPONENT - (low << 6)
    shift = np.uint64(position & 63)
    lower = fraction << shift
    upper = (fraction >> np.uint64(1)) >> (np.uint64(63) - shift)
    if position < 0:
        # The lowest bits of the fraction are zeros below the window.
        return upper, np.uint64(0)
    return (lower, upper) if position < 64 else (np.uint64(0), lower)


@functools.cache
def make_weigh_scores() -> Callable[..., None]:
    """Make ``weigh_scores(score, label, weight, starts, positions, at, form, used, counts, table, slots, …)``.

    The last arguments are `keys` and `cells`. As `count_scores`, for rows with weights, float64 or float32, where
    masses have two digits.
    """

    def weigh_scores(score, label, weight, starts, positions, at, form, used, counts, table, slots, keys, cells):
        low, most, free = form[1], form[3], form[6]
        begins = np.empty(BLOCK_ROWS, dtype=np.uint64)
        one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
        for run in range(at[0], positions.shape[0]):
            position, end = positions[run], starts[run + 1]
            for first in range(max(at[1], starts[run]), end, BLOCK_ROWS):
                block = slice(first, min(first + BLOCK_ROWS, end))
                scores, labels, weights = score[block], label[block], weight[block]
                n_found = find_block(scores, position, form, 2, counts, table, slots, keys, cells, begins)
                for i in range(n_found):
                    begin = begins[i]
                    weight_low, weight_high = cells[begin + two], cells[begin + three]
                    if weight_low | weight_high == np.uint64(0) and not count_cell(used, position, free, most, counts):
                        n_found = i
                        break
                    lower, upper = two_digits(weights[i], low)
                    total = weight_low + lower
                    cells[begin + two] = total
                    cells[begin + three] = weight_high + upper + np.uint64(total < lower)
                    # All bits of the weight of a positive, and none of a negative's.
                    mask = np.uint64(-np.int64(labels[i]))
                    lower &= mask
                    total = cells[begin] + lower
                    cells[begin] = total
                    cells[begin + one] += (upper & mask) + np.uint64(total < lower)
                if n_found < scores.shape[0]:
                    at[0], at[1] = run, first + n_found
                    return
        at[0] = positions.shape[0]

    return compile_cpu(weigh_scores)


@functools.cache
def make_add_cells() -> Callable[..., int]:
    """Make ``add_cells(at, buckets, slices, masses, shift, offset, positions, form, used, counts, table, slots, …)``.

    The last arguments are `keys` and `cells`. It adds cells from `at` on, and returns the number of the first for
    which there is no room.

    Buckets and slices int64 ``(n,)``, masses uint64 ``(n, 2·n_digits)``. Buckets lose `shift` bits more, slice i is
    here ``positions[i]``, and the lowest digit of the masses is digit `offset` of this window. The others as in
    `make_add_scores`.
    """

    def add_cells(
        at, buckets, slices, masses, shift, offset, positions, form, used, counts, table, slots, keys, cells
    ):
        n_given = masses.shape[1] >> 1
        page_bits, most, n_digits, free, table_bits = form[2], form[3], form[5], form[6], form[7]
        in_page = (1 << page_bits) - 1
        for i in range(at, buckets.shape[0]):
            position = positions[slices[i]]
            bucket = buckets[i] >> shift
            page, slot = find_in(bucket >> page_bits, position, table, table_bits, slots, keys)
            is_counted = page < 0
            if is_counted:
                if counts[0] == keys.shape[0] or not count_cell(used, position, free, most, counts):
                    return i
                page = new_page(bucket >> page_bits, position, slot, counts, table, slots, keys)
            begin = ((page << page_bits) + (bucket & in_page)) * 2 * n_digits
            middle, end = begin + n_digits, begin + 2 * n_digits
            is_new = not is_counted and is_unused(cells, middle, end)
            if is_new and not count_cell(used, position, free, most, counts):
                return i
            for digit in range(n_given):
                add_digit(cells, begin + offset + digit, middle, masses[i, digit])
                add_digit(cells, middle + offset + digit, end, masses[i, n_given + digit])
        return buckets.shape[0]

    return compile_cpu(add_cells)


@formula
def add_product(a, b, total):
    """Add the product of two numbers of 32-bit limbs to a third, uint64 arrays with the lowest limb first."""
    for i in range(a.shape[0]):
        if a[i] == np.uint64(0):
            continue
        carry = np.uint64(0)
        for j in range(b.shape[0]):
            value = total[i + j] + a[i] * b[j] + carry
            total[i + j] = value & _LIMB_MASK
            carry = value >> np.uint64(32)
        k = i + b.shape[0]
        while carry != np.uint64(0):
            value = total[k] + carry
            total[k] = value & _LIMB_MASK
            carry = value >> np.uint64(32)
            k += 1


@functools.cache
def make_count_pairs() -> Callable[..., None]:
    """Make ``count_pairs(starts, buckets, masses, dropped, apart, together, positive, negative)``.

    For each slice it sums the products of a positive and a negative mass: `apart` where the positive one is in a
    higher bucket, `together` where they are in one bucket; and the masses themselves.

    Slice s has the buckets ``starts[s]`` to ``starts[s + 1]``, ascending; `masses` uint64 ``(n, 2·n_digits)`` as in a
    record. Only pairs count whose buckets are equal without their low `dropped` bits; 64 is all pairs. The sums are
    limbs of 32 bits in uint64, zero at first, `apart` and `together` ``(n_slices, 4·n_digits)``, the others
    ``(n_slices, 2·n_digits)``.
    """

    def count_pairs(starts, buckets, masses, dropped, apart, together, positive, negative):
        n_digits = masses.shape[1] >> 1
        n_limbs = 2 * n_digits
        above = np.zeros(n_limbs, dtype=np.uint64)
        inside = np.zeros(n_limbs, dtype=np.uint64)
        outside = np.zeros(n_limbs, dtype=np.uint64)
        for s in range(starts.shape[0] - 1):
            above[:] = np.uint64(0)
            last = np.int64(0)
            for i in range(starts[s + 1] - 1, starts[s] - 1, -1):
                group = buckets[i] >> dropped if dropped < 64 else np.int64(0)
                if group != last:
                    above[:] = np.uint64(0)
                    last = group
                borrow = np.uint64(0)
                for digit in range(n_digits):
                    p, w = masses[i, digit], masses[i, n_digits + digit]
                    n = w - p - borrow
                    borrow = np.uint64(1) if (w < p or (w == p and borrow != np.uint64(0))) else np.uint64(0)
                    inside[2 * digit], inside[2 * digit + 1] = p & _LIMB_MASK, p >> np.uint64(32)
                    outside[2 * digit], outside[2 * digit + 1] = n & _LIMB_MASK, n >> np.uint64(32)
                add_product(outside, above, apart[s])
                add_product(outside, inside, together[s])
                carry_above, carry_positive, carry_negative = np.uint64(0), np.uint64(0), np.uint64(0)
                for limb in range(n_limbs):
                    carry_above += above[limb] + inside[limb]
                    above[limb] = carry_above & _LIMB_MASK
                    carry_above >>= np.uint64(32)
                    carry_positive += positive[s, limb] + inside[limb]
                    positive[s, limb] = carry_positive & _LIMB_MASK
                    carry_positive >>= np.uint64(32)
                    carry_negative += negative[s, limb] + outside[limb]
                    negative[s, limb] = carry_negative & _LIMB_MASK
                    carry_negative >>= np.uint64(32)

    return compile_cpu(count_pairs)


@functools.cache
def make_mark_classes() -> Callable[..., None]:
    """Make ``mark_classes(buckets, masses, shift, dropped, positive, negative)``: the buckets where each class occurs.

    Buckets int64 ``(n,)`` lose `shift` bits more, `dropped` in all; `masses` as in `make_count_pairs`; the last two
    are int64 words, a bit for each bucket from the lowest on, which is set where the class occurs.
    """

    def mark_classes(buckets, masses, shift, dropped, positive, negative):
        n_digits = masses.shape[1] >> 1
        for i in range(buckets.shape[0]):
            has_positive, has_negative = False, False
            for digit in range(n_digits):
                has_positive |= masses[i, digit] != np.uint64(0)
                has_negative |= masses[i, digit] != masses[i, n_digits + digit]
            bucket = (buckets[i] >> shift) + (1 << (63 - dropped))
            if has_positive:
                positive[bucket >> 6] |= 1 << (bucket & 63)
            if has_negative:
                negative[bucket >> 6] |= 1 << (bucket & 63)

    return compile_cpu(mark_classes)
