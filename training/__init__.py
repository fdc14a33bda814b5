"""How the bundled model is made and measured. Not installed with the product."""
