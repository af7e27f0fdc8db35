"""A stand-in for AWS that is stricter than moto: moto's server behind a layer that does what moto leaves out."""
