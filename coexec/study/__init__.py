"""Studies: grids of simulations that are declared in a file, spread over processes, and resumed."""
