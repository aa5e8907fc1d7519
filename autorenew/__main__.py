from autorenew.cli import main

main(prog_name="autorenew")
