from fedbbpt.cli import main

main()
