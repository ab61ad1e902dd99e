"""The generated pages: path in the clone -> a function that returns its text."""

from pages.choose import choose_page
from pages.commands import commands_page
from pages.optimizers import mnist_page, optimizer_page, quadratics_page
from pages.photographs import fine_tuning_page, learned_page, pictures_page
from pages.readme import readme
from pages.reference import api_page, parts_page
from pages.results import results_page

PAGES = {
    "README.md": readme,
    "docs/api.md": api_page,
    "docs/choose.md": choose_page,
    "docs/commands.md": commands_page,
    "docs/lab_book/optimizer_mnist.md": mnist_page,
    "docs/lab_book/optimizer_quadratics.md": quadratics_page,
    "docs/lab_book/photographs_fine_tuning.md": fine_tuning_page,
    "docs/lab_book/photographs_learned.md": learned_page,
    "docs/optimizer.md": optimizer_page,
    "docs/parts.md": parts_page,
    "docs/pictures.md": pictures_page,
    "docs/results.md": results_page,
}
