"""The papers' formulas, pure: tensors in, tensors out."""
