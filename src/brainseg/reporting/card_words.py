"""The fixed texts of a model card, by the source of the training data (``download.source``)."""

NETWORKS = {
    "unet": "U-Net",
    "attention_unet": "attention U-Net",
    "residual_unet": "residual U-Net",
    "unet3d": "3D U-Net",
}
DATA = {
    "kaggle": "LGG MRI Segmentation (Buda et al. 2019; TCGA-LGG): lower-grade gliomas, patients of five institutions",
    "phantom": "phantoms: heads and tumours drawn by the program, no patients",
    "folder": "images and masks of the person who trained the model",
}
INTENDED = {
    "kaggle": "Research and teaching: a baseline to compare with, a starting point for own data, an example of honest "
    "evaluation.",
    "phantom": "Showing that the program works. It was trained on drawn pictures only; its answer for a real scan "
    "means nothing. For the model that was trained on patients: make pull.",
    "folder": "Research and teaching, on images like those it was trained on.",
}
UNKNOWN = {
    "kaggle": "Post-operative brains, other tumours, children, other planes than axial, scanners and sequences unlike "
    "those of the five institutions in the data. The network gives an answer for any picture; it does not notice that "
    "a picture shows no brain.",
    "phantom": "Everything but phantoms.",
    "folder": "Scanners, sequences, planes and diseases that are not in its training data. The network gives "
    "an answer for any picture; it does not notice that a picture shows no brain.",
}
SCALP = {
    "kaggle": (
        "It learned from whole heads{also}. On scans without scalp (skull-stripped) {risk}; the table of numbers says "
        "how it does on its own patients with the scalp removed, where that was measured. The program tells such a "
        "scan by the missing bone and marks it.",
    ),
    "folder": (
        "Whether its training data are whole heads or brains without scalp (skull-stripped) the program does not know; "
        "scans of the other kind may be outlined worse. The mark for scans without scalp comes in either case.",
    ),
}
REFERENCE = {
    "kaggle": "One outline for each slice, drawn by hand for the data set. A human reader agrees with it at about 0.84 "
    "Dice (Buda et al. 2019), so a small difference from the reference is not necessarily an error.",
    "phantom": "The tumours as they were drawn, exact to the pixel.",
    "folder": "The masks that came with the images.",
}
FAIRNESS = {
    "kaggle": "Age, sex and ancestry were not used. Results by them are not reported, because there are too few "
    "patients.",
    "phantom": "There are no people in the data.",
    "folder": "The program does not know age, sex and ancestry, so results by them are not reported.",
}
HARDLY_SEEN = "it may miss lesions at the brain's edge"
HARDLY_TRIED = "it was tried with the scalp of its own patients removed, not on scans that another program has stripped"
ALSO_STRIPPED = " and, in {percent} % of its samples, from brains without scalp"
LICENCE = {
    "kaggle": "CC BY-NC-SA 4.0, as derived from the data: not for commercial use. The originals: TCIA, TCGA-LGG, with "
    "attribution. The program: Apache-2.0.",
    "phantom": "Apache-2.0, as the program that drew the data.",
    "folder": "What the licence of the training data allows. The program: Apache-2.0.",
}
CITATIONS = (
    "Buda, Saha, Mazurowski: Association of genomic subtypes of lower-grade gliomas with shape features automatically "
    "extracted by a deep learning algorithm. Computers in Biology and Medicine 109, 2019. "
    "doi:10.1016/j.compbiomed.2019.05.002",
    "Mazurowski, Clark, Czarnek, Shamsesfandabadi, Peters, Saha: Radiogenomics of lower-grade glioma: "
    "algorithmically-assessed tumor shape is associated with tumor genomic subtypes and patient outcomes in a "
    "multi-institutional study with The Cancer Genome Atlas data. Journal of Neuro-Oncology 133, 2017. "
    "doi:10.1007/s11060-017-2420-1",
)
RELEASED = (
    "This network was trained on all patients, so that none is left to score it. Its numbers are those of its recipe "
    "in {folds} folds: each patient is scored by a network that never saw it. Threshold and smallest part are the "
    "medians of those that the folds chose on {choosers}; probabilities are calibrated by the patients "
    "of all folds, and the calibration error is that of folds that the others calibrate."
)
CHOOSERS = {False: "their validation patients", True: "the test patients of the other folds"}  # by cross_fitted
SMALL_INSTITUTIONS = "Institutions with few patients are grouped as “other”. The group can differ between the columns."
TRIED = 110, 22  # patients, and test patients, of the trials in RECIPE
RECIPE = (
    "The recipe was chosen in trials that scored these patients too; those of the network's last changes did "
    "not score the test patients. "
    "The numbers out of fold are of all patients, each scored by a model that never saw it."
)
