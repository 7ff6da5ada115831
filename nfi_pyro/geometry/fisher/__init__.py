"""The Fisher metric of a pricing law: quadrature, embedding, metric, spectrum, and its inputs."""
