"""Short reports for phantoms: what was looked at, what was found, what was not."""

from __future__ import annotations

from indexer.demo.roster import Exam

_TECHNIQUE = {
    "DX": "Radiograph of the {part}{view}.",
    "MG": "Digital mammogram of the {side} breast{view}.",
    "US": "Ultrasound of the {part}.",
    "CT": "Computed tomography of the {part}.",
    "MR": "Magnetic resonance imaging of the brain, {kind} weighted.",
    "dermoscopy": "Dermoscopic photograph.",
}
_SEEN = {
    "pneumonia": "Patchy airspace opacity in the {side} lung.",
    "pleural_effusion": "Free fluid along the {side} pleura with a meniscus.",
    "nodule": "Round well-defined opacity of {size} mm in the {side} lung.",
    "cardiomegaly": "The cardiac silhouette is enlarged, the cardiothoracic ratio is above 0.5.",
    "pneumothorax": "A pleural line is seen on the {side} with no lung markings beyond it.",
    "emphysema": "Multiple low-attenuation areas without walls in both lungs.",
    "fracture": "A lucent line with a cortical step crosses the bone on the {side}.",
    "osteoarthritis": "The joint space is narrowed with sclerosis and osteophytes on the {side}.",
    "spiculated_mass": "Dense mass of {size} mm with spiculated margins in the {side} breast.",
    "round_mass": "Round circumscribed mass of {size} mm in the {side} breast.",
    "calcifications": "Grouped fine calcifications over {size} mm in the {side} breast.",
    "cyst": "Anechoic lesion of {size} mm with posterior enhancement.",
    "solid_mass": "Irregular hypoechoic mass of {size} mm with posterior shadowing in the {side} breast.",
    "steatosis": "The liver is diffusely altered in keeping with fatty infiltration.",
    "liver_cyst": "Well-defined lesion of water density, {size} mm, in the right lobe of the liver.",
    "liver_metastases": "Multiple hypodense lesions of the liver, the largest {size} mm.",
    "kidney_tumour": "Heterogeneous enhancing mass of {size} mm at the {side} kidney.",
    "haemorrhage": "Hyperdense collection of {size} mm in the {side} hemisphere with surrounding oedema.",
    "subdural_haematoma": "Crescent-shaped hyperdense collection over the {side} convexity, {size} mm.",
    "infarct": "Hypodense area of {size} mm in the {side} middle cerebral artery territory.",
    "tumour": "Mass of {size} mm with a necrotic centre and oedema in the {side} hemisphere.",
    "demyelination": "Multiple ovoid periventricular lesions.",
    "nevus": "Symmetric evenly brown lesion of {size} mm with a regular network.",
    "melanoma": "Asymmetric lesion of {size} mm with several colours and a blue-white veil.",
    "basal_cell_carcinoma": "Pearly pink lesion of {size} mm with branching vessels and a small ulcer.",
    "seborrhoeic_keratosis": "Sharply bordered waxy lesion of {size} mm with milia-like cysts.",
}
_ABSENT = {
    "lung": {
        "pleural_effusion": "No pleural effusion.",
        "pneumothorax": "No pneumothorax.",
        "pneumonia": "No consolidation.",
    },
    "hand": {"fracture": "No fracture."},
    "knee": {"fracture": "No fracture."},
    "breast": {"spiculated_mass": "No spiculated mass.", "calcifications": "No suspicious calcifications."},
    "liver": {"liver_metastases": "No focal lesion suspicious of malignancy."},
    "kidney": {"liver_metastases": "No liver metastases."},
    "brain": {"haemorrhage": "No intracranial haemorrhage.", "tumour": "No space-occupying lesion."},
    "skin": {"melanoma": "No features of melanoma."},
}
_SIDES = {"L": "left", "R": "right"}


def report(exam: Exam) -> str:
    """Technique, findings with what is absent, impression; in the manner of a radiologist, about a phantom."""
    finding = exam.finding
    words = {
        "part": exam.body_part.lower(),
        "view": f", {exam.view} view" if exam.view else "",
        "kind": exam.kind,
        "side": _SIDES.get(finding.side or exam.side, ""),
        "size": f"{finding.size_mm:.0f}" if finding.size_mm else "",
    }
    seen = _SEEN.get(finding.name, "Normal appearance of the {part}.").format(**words)
    absent = [text for name, text in _ABSENT[exam.organ].items() if name != finding.name]
    named = finding.name.replace("_", " ")
    impression = "No abnormality." if finding.name == "normal" else f"{named.capitalize()}."
    technique = _TECHNIQUE[exam.modality].format(**words)
    return " ".join(["Synthetic phantom.", technique, "Findings:", seen, *absent, "Impression:", impression])
