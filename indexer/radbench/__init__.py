"""The five questions of RadBench, answered by retrieval alone (Wu et al., "Towards Generalist Foundation Model for
Radiology", 2023): modality recognition, disease diagnosis, visual question answering, report generation, rationale
diagnosis."""
