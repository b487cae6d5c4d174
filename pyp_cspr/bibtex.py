"""
@article{Bartesaghi2018,
title = "Atomic Resolution Cryo-EM Structure of beta-Galactosidase",
journal = "Structure",
volume = "26",
number = "6",
pages = "848-856.e3",
year = "2018",
doi = "10.1016/j.str.2018.04.004",
author = "Bartesaghi, Alberto and Aguerrebere, Cecilia and Falconieri, Veronica and Banerjee, Soojay and Earl, Lesley A. and Zhu, Xing and Grigorieff, Nikolaus and Milne, Jacqueline L.S. and Sapiro, Guillermo and Wu, Xiongwu and Subramaniam, Sriram"
}

@article{Liu2023,
title = "nextPYP: a comprehensive and scalable platform for characterizing protein variability in situ using single-particle cryo-electron tomography",
journal = "Nature Methods",
volume = "20",
pages = "1909-1919",
year = "2023",
doi = "10.1038/s41592-023-02045-0",
author = "Liu, Hsuan-Fu and Zhou, Ye and Huang, Qinwen and Piland, Jonathan and Jin, Weisheng and Mandel, Justin and Du, Xiaochen and Martin, Jeffrey and Bartesaghi, Alberto"
}
"""
