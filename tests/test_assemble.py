"""Series assembly: scans built by hand for every shape a series can have, and real series when they are at hand."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.assemble import CasePlan, assemble, case_id, derived_uid, group_key, stands_alone
from indexer.limits import Limits
from indexer.readers.dicom import DicomReader
from indexer.sources import Plane, Scan, Source
from retrieval.errors import LimitExceeded
from retrieval.types import Attributes, CaseKind
from tests.shared_data import shared_root

LIMITS = Limits()
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
SERIES = "1.2.3"


def picture(number: int, **changes: object) -> Scan:
    """A file of one frame without a place."""
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    made = Scan(
        Source(Path(f"{number:04d}.dcm")), "dicom", sha256, 100, frames=1, rows=64, columns=32, spacing=(1.0, 0.5),
        attributes=Attributes(modality="DX"), patient_id="p", study_uid="1.2", series_uid=SERIES,
        sop_uid=f"1.2.3.{number + 1}", instance_number=number,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def slice_at(
    number: int,
    position: tuple[float, float, float],
    axes: tuple[object, object] = AXIAL,
    stack: str = "",
    **changes: object,
) -> Scan:
    plane = Plane(position, *axes, stack=stack)  # type: ignore[arg-type]
    return picture(number, planes=(plane,), volumetric=True, attributes=Attributes(modality="CT"), **changes)


def stack_of(positions: Sequence[float], first: int = 0, stack: str = "") -> list[Scan]:
    return [slice_at(first + n, (0.0, 0.0, z), stack=stack) for n, z in enumerate(positions)]


def only(scans: Sequence[Scan]) -> CasePlan:
    (plan,) = assemble(scans, LIMITS)
    return plan


def test_slices_are_ordered_by_position_alone() -> None:
    heights = [30.0, 0.0, 20.0, 10.0, 40.0]
    plan = only(stack_of(heights))
    assert plan.kind == CaseKind.VOLUME
    assert [frame.position_mm for frame in plan.frames] == [0.0, 10.0, 20.0, 30.0, 40.0]
    assert [plan.scans[frame.file].instance_number for frame in plan.frames] == [1, 3, 2, 0, 4]
    assert (plan.slice_spacing_mm, plan.plane, plan.spacing) == (10.0, "axial", (1.0, 0.5))
    assert plan.warnings == ()
    assert plan.case_id == case_id(CaseKind.VOLUME, SERIES, plan.part)


def test_the_way_rows_run_does_not_change_the_order() -> None:
    turned = ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0))  # its normal points to the feet
    scans = [slice_at(n, (0, 0, 3.0 * n), turned) for n in range(4)]
    assert [frame.position_mm for frame in only(scans).frames] == [0.0, 3.0, 6.0, 9.0]


def test_turned_frames_have_turned_sizes() -> None:
    swapped = ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    plan = only([slice_at(n, (0, 0, 3.0 * n), swapped) for n in range(4)])
    assert (plan.rows, plan.columns, plan.spacing) == (32, 64, (0.5, 1.0))


def test_ids_are_known_values() -> None:
    """Stored galleries hold these: they may never change."""
    assert case_id(CaseKind.VOLUME, "1.2.3") == "m2xuwg3qswamkufc"
    assert case_id(CaseKind.IMAGE, "1.2.3", "p2") != case_id(CaseKind.IMAGE, "1.2.3")
    found = derived_uid("series", "00")
    assert found.startswith("2.25.")
    assert len(found) <= 64
    assert found == derived_uid("series", "00") != derived_uid("study", "00")


def test_files_without_uids_get_some_from_their_bytes() -> None:
    scan = picture(1, series_uid="", study_uid="", sop_uid="", format="raster")
    plan = only([scan])
    assert plan.series_uid.startswith("2.25.")
    assert plan.study_uid.startswith("2.25.")
    assert plan.case_id == only([replace(scan, source=Source(Path("moved")))]).case_id
    assert group_key(scan) == scan.sha256
    assert group_key(picture(1)) == SERIES


def test_exact_duplicates_are_dropped_and_told() -> None:
    scans = stack_of([0, 3, 6, 9])
    plan = only([*scans, replace(scans[1], source=Source(Path("copy.dcm")))])
    assert len(plan.frames) == 4
    assert plan.warnings == ("Left out: 1 exact duplicates.",)
    assert len(plan.skipped) == 1


def test_one_uid_with_two_contents_is_told_with_both_hashes() -> None:
    scans = stack_of([0, 3, 6, 9])
    other = replace(slice_at(77, (0, 0, 6)), sop_uid=scans[2].sop_uid)
    plan = only([*scans, other])
    assert len(plan.frames) == 4
    ((_, reason),) = plan.skipped
    assert scans[2].sha256 in reason
    assert other.sha256 in reason
    assert "SOPInstanceUID" in plan.warnings[0]


def test_localizers_are_left_out_unless_there_is_nothing_else() -> None:
    scout = slice_at(50, (0, 0, 0), SAGITTAL, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    plan = only([*stack_of([0, 3, 6, 9]), scout])
    assert plan.warnings == ("Left out: 1 localizers.",)
    assert plan.skipped[0][0] == scout.source
    assert only([scout]).kind == CaseKind.IMAGE


def test_missing_slices() -> None:
    plan = only(stack_of([0, 3, 6, 15, 18, 21, 24]))
    assert plan.warnings == ("Slices are missing: 2 in 1 gaps of up to 9.00 mm, where slices are 3.00 mm apart.",)


def test_uneven_spacing() -> None:
    assert only(stack_of([0, 3, 6, 9, 12.6, 15.6])).warnings == ("Slice spacing is uneven: 3.00 to 3.60 mm.",)
    assert only(stack_of([0, 4, 8, 12, 19, 26, 33])).warnings == ("Slice spacing is uneven: 4.00 to 7.00 mm.",)


def test_gantry_tilt() -> None:
    tilt = math.radians(18.5)
    axes = ((1.0, 0.0, 0.0), (0.0, math.cos(tilt), -math.sin(tilt)))
    plan = only([slice_at(n, (0, 0, 5.0 * n), axes) for n in range(6)])
    assert plan.plane == "axial"
    assert plan.slice_spacing_mm == pytest.approx(5 * math.cos(tilt))
    assert plan.warnings == ("The slices are sheared by 18.5 degrees (gantry tilt): they are used as they are.",)


def test_small_stacks() -> None:
    assert only(stack_of([0, 3])).warnings == ("The stack has only 2 slices.",)
    single = only(stack_of([7]))
    assert (single.kind, single.frames[0].position_mm, single.slice_spacing_mm) == (CaseKind.IMAGE, 7.0, None)
    assert single.case_id == case_id(CaseKind.IMAGE, "1.2.3.1")


def test_orientations_are_parted() -> None:
    sagittal = [slice_at(100 + n, (4.0 * n, 0, 0), SAGITTAL) for n in range(4)]
    large, small = assemble([*sagittal, *stack_of([0, 3, 6, 9, 12])], LIMITS)
    assert [(plan.plane, len(plan.frames)) for plan in (large, small)] == [("axial", 5), ("sagittal", 4)]
    assert large.warnings == small.warnings == ("The series was split into 2 stacks (2 orientations).",)
    assert large.case_id != small.case_id


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rows": 128}, "2 image sizes"),
        ({"spacing": (2.0, 2.0)}, "2 pixel spacings"),
        ({"patient_id": "q"}, "2 patients"),
    ],
)
def test_other_differences_part_a_series_too(change: dict[str, object], named: str) -> None:
    other = [replace(scan, **change) for scan in stack_of([0, 3, 6, 9], first=50)]  # type: ignore[arg-type]
    plans = assemble([*stack_of([0, 3, 6, 9]), *other], LIMITS)
    assert [len(plan.frames) for plan in plans] == [4, 4]
    assert named in plans[0].warnings[0]
    assert "'q'" not in repr(plans[0])


def test_contrasts_make_cases_in_numeric_order() -> None:
    scans = [
        scan for n, b in enumerate((1000, 50, 400)) for scan in stack_of([0, 3, 6, 9], first=100 * n, stack=f"b={b}")
    ]
    plans = assemble(scans, LIMITS)
    assert [plan.part.partition("|b=")[2] for plan in plans] == ["50#1", "400#1", "1000#1"]
    assert [plan.warnings[1] for plan in plans] == [f"This stack is the one of b={b}." for b in (50, 400, 1000)]


def test_a_stack_keeps_its_identity_when_more_of_the_series_arrives() -> None:
    axial = stack_of([0, 3, 6])
    sagittal = [slice_at(100 + n, (4.0 * n, 0, 0), SAGITTAL) for n in range(6)]
    alone = only(axial)
    together = {plan.plane: plan for plan in assemble([*axial, *sagittal], LIMITS)}
    assert together["axial"].case_id == alone.case_id
    assert together["sagittal"].case_id == only(sagittal).case_id
    assert only([*axial, *stack_of([9, 12], first=50)]).case_id == alone.case_id


def test_far_apart_stacks_are_parted_and_wide_gaps_are_not() -> None:
    apart = [*(3.0 * n for n in range(6)), *(100 + 3.0 * n for n in range(5))]
    assert [len(plan.frames) for plan in assemble(stack_of(apart), LIMITS)] == [6, 5]
    assert len(only(stack_of([0, 3, 6, 9, 12, 99])).frames) == 6


def test_stacks_side_by_side_are_parted() -> None:
    left = stack_of([0, 3, 6, 9])
    right = [slice_at(50 + n, (180.0, 0, 3.0 * n)) for n in range(4)]
    plans = assemble([*left, *right], LIMITS)
    assert [len(plan.frames) for plan in plans] == [4, 4]
    assert "different places" in plans[0].warnings[0]


def test_repetitions_give_the_first_complete_volume() -> None:
    volumes = [stack_of([0, 3, 6, 9], first=100 * t, stack=f"t={t + 1}") for t in range(3)]
    missing_one = volumes[0][:-1]
    plan = only([*volumes[2], *missing_one, *volumes[1]])
    assert {scan.instance_number for scan in plan.scans} == {100, 101, 102, 103}
    assert "3 volumes" in plan.warnings[0]
    assert len(plan.skipped) == 7


def test_a_cine_at_one_position_keeps_all_its_frames_in_time() -> None:
    phases = [slice_at(n, (0, 0, 12.0), stack=f"t={9 - n}") for n in range(5)]
    plan = only(phases)
    assert plan.kind == CaseKind.VOLUME
    assert [plan.scans[frame.file].instance_number for frame in plan.frames] == [4, 3, 2, 1, 0]
    assert (plan.slice_spacing_mm, plan.warnings, plan.skipped) == (None, (), ())


def test_repetitions_without_a_time_go_by_instance_number() -> None:
    plan = only([*stack_of([0, 3, 6, 9], first=100), *stack_of([0, 3, 6, 9])])
    assert {scan.instance_number for scan in plan.scans} == {0, 1, 2, 3}


def test_a_multi_frame_file_is_one_volume() -> None:
    planes = tuple(Plane((0, 0, z), *AXIAL, stack=f"t={t}") for t in (1, 2) for z in (6.0, 0.0, 3.0, 9.0))
    scan = replace(slice_at(1, (0, 0, 0)), frames=8, planes=planes)
    plan = only([scan])
    assert [(frame.file, frame.frame) for frame in plan.frames] == [(0, 1), (0, 2), (0, 0), (0, 3)]
    assert plan.skipped == ((scan.source, "4 of 8 frames repeat positions of the volume that is used."),)


def test_loops_and_pictures_stand_alone() -> None:
    loop = picture(1, frames=30)
    plans = assemble([loop, picture(2), picture(3)], LIMITS)
    assert Counter(plan.kind for plan in plans) == {CaseKind.VOLUME: 1, CaseKind.IMAGE: 2}
    assert len({plan.case_id for plan in plans}) == 3
    volume = next(plan for plan in plans if plan.kind == CaseKind.VOLUME)
    assert [frame.frame for frame in volume.frames] == list(range(30))
    assert volume.warnings == ()
    assert volume.case_id == only([loop]).case_id  # whatever else arrives in the series


def test_files_without_pixels_are_told_and_the_series_limit_holds() -> None:
    report = picture(9, frames=0, warnings=("No pixels: this is a Basic Text SR Storage, not an image.",))
    assert assemble([report], LIMITS) == []
    assert only([report, picture(1)]).skipped == ((report.source, report.warnings[0]),)
    with pytest.raises(LimitExceeded, match="series of 4 frames"):
        assemble(stack_of([0, 3, 6, 9]), Limits(frames=3))
    with pytest.raises(LimitExceeded, match="voxels"):
        assemble(stack_of([0, 3, 6, 9]), Limits(voxels=64 * 32 * 4 - 1))
    assert len(assemble(stack_of([0, 3, 6, 9]), Limits(frames=4, voxels=64 * 32 * 4))) == 1


def test_patient_ids_are_not_shown() -> None:
    assert "secret-id" not in repr(replace(only(stack_of([0, 3])), patient_id="secret-id"))


_AXES = st.sampled_from([AXIAL, SAGITTAL, ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0))])
_PLACES = st.tuples(
    st.sampled_from([0.0, 50.0]), st.sampled_from([0.0, 2.0]), st.integers(-4, 4).map(lambda n: 2.5 * n)
)


@st.composite
def series(draw: st.DrawFn) -> list[Scan]:
    """Anything a series folder may hold: slices of several stacks, loops, pictures, scouts, reports, copies."""
    made: list[Scan] = []
    for number in range(draw(st.integers(1, 14))):
        kind = draw(st.sampled_from(["slice"] * 6 + ["many", "picture", "loop", "scout", "report", "copy", "clash"]))
        stack = draw(st.sampled_from(["", "t=1", "t=2", "b=0", "b=800;t=1"]))
        plane = Plane(draw(_PLACES), *draw(_AXES), stack=stack)
        scan = slice_at(number, plane.position, (plane.row, plane.column), stack)
        if kind == "many":
            scan = replace(scan, frames=3, planes=(plane, replace(plane, position=draw(_PLACES)), plane))
        elif kind == "picture":
            scan = picture(number)
        elif kind == "loop":
            scan = picture(number, frames=4)
        elif kind == "scout":
            scan = replace(scan, image_type=("LOCALIZER",))
        elif kind == "report":
            scan = picture(number, frames=0)
        elif kind == "copy" and made:
            scan = replace(made[0], source=scan.source)
        elif kind == "clash" and made:
            scan = replace(scan, sop_uid=made[-1].sop_uid)
        made.append(scan)
    return made


@given(series(), st.randoms(use_true_random=False))
def test_order_of_arrival_never_matters(scans: list[Scan], random) -> None:  # type: ignore[no-untyped-def]
    plans = assemble(scans, LIMITS)
    shuffled = list(scans)
    random.shuffle(shuffled)
    assert assemble(shuffled, LIMITS) == plans
    assert len({plan.case_id for plan in plans}) == len(plans)


@given(series())
def test_every_frame_is_used_once_or_told(scans: list[Scan]) -> None:
    plans = assemble(scans, LIMITS)
    used = Counter((str(p.scans[f.file].source), f.frame) for p in plans for f in p.frames)
    assert set(used.values()) <= {1}
    told = {str(source) for plan in plans for source, _ in plan.skipped}
    for scan in scans:
        all_used = all((str(scan.source), n) in used for n in range(scan.frames)) and scan.frames > 0
        assert all_used != (str(scan.source) in told) or not plans
    for plan in plans:
        assert len({frame.file for frame in plan.frames}) == len(plan.scans)
        positions = [frame.position_mm for frame in plan.frames if frame.position_mm is not None]
        assert positions == sorted(positions)
        assert plan.kind == (CaseKind.VOLUME if len(plan.frames) > 1 else CaseKind.IMAGE)


@given(series())
def test_what_stands_alone_gives_the_cases_it_gives_in_company(scans: list[Scan]) -> None:
    modality = scans[0].attributes.modality if scans else ""  # a series has one (PS3.3 C.7.3.1)
    scans = [scan for scan in scans if scan.attributes.modality == modality]
    once = {scan.sop_uid: scan for scan in reversed(scans)}  # which of two copies is told is another matter
    alone = [scan for scan in once.values() if stands_alone(scan)]
    rest = [scan for scan in once.values() if not stands_alone(scan)]
    apart = [plan for group in (*([scan] for scan in alone), rest) for plan in assemble(group, LIMITS)]
    together = assemble(list(once.values()), LIMITS)
    assert {plan.case_id for plan in apart} == {plan.case_id for plan in together}
    assert sum(len(plan.frames) for plan in apart) == sum(len(plan.frames) for plan in together)


ROOT = shared_root()
# (cases, frames of the first, plane, millimetres between slices) of every real series
REAL = {
    "dcm-qa-agfa-1693354-ep2d-fid-weisskoff-25slc": (1, 25, "axial", 3.3),
    "dcm-qa-ct-qmnx85rkkkg": (1, 28, "axial", 4.0),
    "dcm-qa-philips-asl-phantom02-3d-pcasl-6mm": (1, 14, "axial", 6.0),
    "dcm-qa-philips-asl-phantom02-pcasl": (1, 16, "axial", 6.0),
    "dcm-qa-sag-funstar-product-epi-sag-ascendin": (1, 63, "sagittal", 2.2),
    "dcm-qa-sag-funstar-product-epi-sag-interlea": (1, 63, "sagittal", 2.2),
    "dcm-qa-xa30-12343-hucheng-anat-t1w-acq-tfl": (1, 96, "sagittal", 2.0),
    "dcm-qa-xa30-12343-hucheng-asl-2d-tra": (1, 12, "axial", 7.5),
    "dcm-qa-xa30-12343-hucheng-dwi-dir80-ap-adc": (1, 39, "axial", 3.0),
    "dcm-qa-xa30-12343-hucheng-dwi-dir80-ap-colfa": (1, 39, "axial", 3.0),
    "dcm-qa-xa30-12343-hucheng-dwi-dir80-ap-fa": (1, 39, "axial", 3.0),
    "dcm-qa-xa30-12343-hucheng-dwi-dir80-ap-tensor-b0": (1, 39, "axial", 3.0),
    "dcm-qa-xa30-12343-hucheng-dwi-dir80-pa-adc": (1, 39, "axial", 3.0),
    "dcm-qa-xa30-12343-hucheng-gre-field-mapping": (1, 33, "axial", 3.4),
    "dcm-qa-xa30-12343-hucheng-perfusion-weighted": (1, 12, "axial", 7.5),
    "dcm-qa-xa30-12343-hucheng-relcbf": (1, 12, "axial", 7.5),
    "pacsman-data-pacsman1-pacsman-testing-dicom": (1, 128, "axial", 1.0),
    "picai-prep-prostatex-0000-ep2d-diff-tra-dyndist": (3, 19, "axial", 3.0),
    "picai-prep-prostatex-0000-ep2d-diff-tra-dyndist-ad": (1, 19, "axial", 3.0),
    "picai-prep-prostatex-0000-ep2d-diff-tra-dyndistcal": (1, 19, "axial", 3.0),
    "picai-prep-prostatex-0000-t2-tse-cor": (1, 15, "coronal", 3.0),
    "picai-prep-prostatex-0000-t2-tse-sag": (1, 19, "sagittal", 3.6),
    "picai-prep-prostatex-0000-t2-tse-tra": (1, 19, "axial", 3.0),
    "picai-prep-prostatex-0000-tfl-3d-pd-ref-tra-1-5x1": (1, 16, "axial", 3.0),
    "picai-prep-prostatex-0001-ep2d-diff-tra-dyndist-mi-2": (1, 19, "axial", 3.0),
    "picai-prep-prostatex-0001-tfl-3d-pd-ref-tra-1-5x1": (1, 16, "axial", 3.0),
    "rse-panimg-17-09-05-08-31-extremity-4-0-b60s": (1, 7, "axial", 4.0),
    "totalsegmentator-ct-body-3-0": (1, 1, "axial", None),
}


@pytest.mark.skipif(ROOT is None, reason="the shared volumes are not here")
@pytest.mark.parametrize("name", sorted(REAL))
def test_real_series(name: str) -> None:
    assert ROOT is not None
    cases, frames, plane, step = REAL[name]
    folder = ROOT / "volumes" / "dicom" / name
    scans = [DicomReader().scan(Source(path), LIMITS) for path in sorted(folder.iterdir())]
    assert len({group_key(scan) for scan in scans}) == 1
    plans = assemble(scans, LIMITS)
    assert [len(plan.frames) for plan in plans] == [frames] * cases
    assert {plan.plane for plan in plans} == {plane}
    assert plans[0].slice_spacing_mm == (step and pytest.approx(step, abs=0.01))
