"""What the worker is made of: ``server`` speaks HTTP, ``engine_thread`` owns MLX and calls the rest."""
