"""What a user asks for: one pair, files of them, their texts, and the ranges that a bundle was calibrated on."""
