"""How a pair comes out of noise: the noise, the schedule's tables, guidance and the sampler."""
