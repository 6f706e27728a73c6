"""A static model of the products' speed: `python -m bench.model` prints what it predicts."""
