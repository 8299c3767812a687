"""How codes are learned: the method protocol, losses, centres, the table of codes.

The legend of tensor names, the same in every module (source: Semantically Cycle-consistent
Hashing Networks, ACM TOMM 2022):

========  =========  ====================================================================
name      shape      meaning
========  =========  ====================================================================
N, n      int        rows in the global batch (all workers together); training rows
C, K      int        classes; bits of a code
Y         [N, C]     multi-hot labels, 0 or 1
F_v, F_s  [N, d]     visual and semantic feature
Z         [N, 1024]  latent feature
U_v       [N, K]     relaxed image code in [-1, 1]; U_s semantic, U_z latent
R_v, R_s  [N, K]     reconstructed image and semantic codes
A         [N, N]     1 where two rows share a label, diagonal included
B         [n, K]     discrete codes, -1 or +1; 0 for a row that has no code yet
========  =========  ====================================================================
"""
