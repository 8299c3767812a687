"""SCHN: Semantically Cycle-consistent Hashing Networks (ACM TOMM 2022)."""
