"""What should be known of a stack's geometry: plain sentences with numbers, no patient data. Pure."""

from __future__ import annotations

from indexer.stacks import Stack, tilt_degrees

UNEVEN = 0.05  # a step this far (as a share) from the usual one is told
MISSING = 1.5  # a step this many times the usual one may be a gap
WHOLE = 0.15  # ... if it is a whole number of slices to within this share of one
FEW_GAPS = 0.2  # ... and no more than this share of all steps are: else the spacing changes on purpose
TILTED_DEGREES = 1.0
FEW_SLICES = 4


def stack_warnings(stack: Stack) -> tuple[str, ...]:
    """Quality warnings of one stack, in a fixed order."""
    found = []
    if stack.volumes > 1:
        found.append(
            f"The series repeats its positions: {stack.volumes} volumes (points in time or repetitions), "
            "the first complete one is used."
        )
    if (step := stack.step) is not None:
        if len(stack.slices) < FEW_SLICES:
            found.append(f"The stack has only {len(stack.slices)} slices.")
        found += _spacing_warnings(stack.steps, step)
        if (tilt := tilt_degrees(stack)) > TILTED_DEGREES:
            found.append(f"The slices are sheared by {tilt:.1f} degrees (gantry tilt): they are used as they are.")
    return tuple(found)


def _spacing_warnings(steps: list[float], usual: float) -> list[str]:
    """A few steps of two or more whole slices are gaps; any other difference is uneven spacing."""
    gaps = [step for step in steps if step > MISSING * usual and abs(step / usual - round(step / usual)) < WHOLE]
    if len(gaps) > FEW_GAPS * len(steps):
        gaps = []
    found = []
    if gaps:
        missing = sum(round(step / usual) - 1 for step in gaps)
        found.append(
            f"Slices are missing: {missing} in {len(gaps)} gaps of up to {max(gaps):.2f} mm, "
            f"where slices are {usual:.2f} mm apart."
        )
    regular = [step for step in steps if step not in gaps]
    if any(abs(step - usual) > max(UNEVEN * usual, 0.02) for step in regular):
        found.append(f"Slice spacing is uneven: {min(regular):.2f} to {max(regular):.2f} mm.")
    return found
