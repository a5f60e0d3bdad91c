"""Which of two runs is better, patient by patient, and how sure that is."""
