"""Word lists of the matcher: closed classes. What is open (names, numbers, nouns) is compared, not listed."""

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CONTRACTED: Final = {
    "can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not", "let's": "let us",
    "gonna": "going to", "wanna": "want to", "gotta": "got to",
    "dont": "do not", "doesnt": "does not", "didnt": "did not", "cant": "can not", "isnt": "is not",
    "arent": "are not", "wasnt": "was not", "couldnt": "could not", "wouldnt": "would not",
    "shouldnt": "should not", "havent": "have not", "hasnt": "has not",
    "whats": "what is", "hows": "how is", "wheres": "where is", "thats": "that is", "im": "i am",
    "ive": "i have", "youre": "you are", "theyre": "they are",
}  # fmt: skip
ENDINGS: Final = {"'re": "are", "'ve": "have", "'ll": "will", "'m": "am", "'d": "would"}
# After these 's is "is"; after a name it is a possessive and stays.
IS_AFTER: Final = _words("what where who how when why it that there here he she this everything")

AUXILIARIES: Final = _words(
    "is are was were am do does did have has had can could will would should shall may might must"
)
PRONOUNS: Final = _words("i you he she it we they this that there")
QUESTIONS: Final = _words("what where who whom whose how when why which")
OPENERS: Final = AUXILIARIES | PRONOUNS | QUESTIONS | _words("my our please pls plz kindly if just")

GREETINGS: Final = (
    "hi there", "hello there", "hey there", "hi team", "hello team", "hi all", "hi everyone",
    "good day", "good morning", "good afternoon", "good evening", "hi", "hello", "hey", "greetings",
    "dear team", "excuse me",
    "sorry to bother you", "sorry", "quick question", "ok", "okay", "well", "um", "so",
    "hallo", "guten tag", "bonjour", "hola", "buenos días", "ciao",
)  # fmt: skip
PLEASE: Final = (
    "please", "pls", "plz", "kindly", "bitte", "por favor", "per favore", "svp", "s'il vous plaît",
    "s'il te plaît", "s il vous plaît", "s'il vous plait",
)  # fmt: skip
THANKS: Final = (
    "many thanks in advance", "thank you very much", "thank you so much", "thanks in advance",
    "thank you in advance", "thanks a lot", "many thanks", "thanks so much", "thank you", "thanks", "thx",
    "ty", "cheers", "merci", "danke", "gracias", "grazie", "vielen dank",
)  # fmt: skip
# Frames around a question: what follows is what is asked.
FRAMES: Final = (
    "could you please tell me", "can you please tell me", "would you please tell me",
    "could you kindly tell me", "could you tell me", "can you tell me", "would you tell me",
    "please could you tell me", "please can you tell me",
    "could you please let me know", "can you please let me know", "could you let me know",
    "can you let me know", "please let me know", "please tell me", "kindly tell me", "tell me please",
    "i would like to know", "i want to know", "i would like to ask", "i wanted to ask", "i want to ask",
    "i was wondering", "i am wondering", "just wondering", "i have a question", "may i ask", "can i ask",
    "could i ask", "do you happen to know", "would you mind telling me",
)  # fmt: skip
# "Can you ship to Norway" is a question and stays; "can you explain X" is the request "explain X".
ASKING: Final = _words(
    "tell explain show help give describe summarize translate write list clarify advise compare check"
    " convert generate create draft rewrite correct calculate provide remind recommend suggest outline"
)
ABOUT_LANGUAGE: Final = _words(
    "say says saying said translate translation translated mean means meaning spell spelled spelling"
    " pronounce word words phrase phrases write reply respond synonym synonyms define definition rhyme"
    " letters note card sentence sing called"
)
NEGATIONS: Final = _words("no not never none nothing nobody neither nor without nicht kein keine pas non ne")
YES: Final = _words("yes yeah yep nope")

# The article after these words says nothing; "plan a", "vitamin a" and "a few" keep it.
BEFORE_ARTICLE: Final = _words(
    "is are was were be for with to of in on at by from as into have has had get need want make open"
    " create request send write buy use see do if when i'm this that it"
)
AFTER_KEPT_ARTICLE: Final = _words("few little lot bit couple and or")

# Spelled alike but for their case, with another meaning.
CASED: Final = _words("us it who aids pin sat")
NAMES: Final = _words(
    "polish turkey china march may apple amazon python java rust go swift ruby jordan chad august reading"
    " nice bill mark will frank grace hope rose jack windows word excel outlook teams zoom slack chrome edge"
    " target shell gap orange oracle sage square stripe"
)
CASED_UNITS: Final = _words(
    "mb gb tb kb pb mbps gbps kbps tbps mib gib mw mv ma mg m k g b pa mpa ms mm mhz s t"
)
# Unlike in nothing but their case, wherever they stand.
MIXED_UNITS: Final = _words("mW mV mA Mb Gb Kb Tb kb mS")
UNITS: Final = CASED_UNITS | _words(
    "kg km cm mi ft in lb lbs oz l ml am pm h hr hrs min mins sec ghz khz hz w kw kwh v gal mph kph"
    " c f px pt usd eur gbp"
)

SPELLINGS: Final = {
    "colour": "color", "favour": "favor", "favourite": "favorite", "behaviour": "behavior",
    "honour": "honor", "labour": "labor", "neighbour": "neighbor", "neighbourhood": "neighborhood",
    "flavour": "flavor", "harbour": "harbor", "humour": "humor", "rumour": "rumor", "armour": "armor",
    "endeavour": "endeavor", "savour": "savor", "vapour": "vapor",
    "centre": "center", "theatre": "theater", "litre": "liter", "fibre": "fiber", "kilometre": "kilometer",
    "centimetre": "centimeter", "millimetre": "millimeter", "calibre": "caliber", "sombre": "somber",
    "catalogue": "catalog", "dialogue": "dialog", "analogue": "analog",
    "cancelled": "canceled", "cancelling": "canceling", "travelled": "traveled", "travelling": "traveling",
    "traveller": "traveler", "labelled": "labeled", "labelling": "labeling", "modelling": "modeling",
    "modelled": "modeled", "signalling": "signaling", "fulfil": "fulfill", "fulfilment": "fulfillment",
    "enrol": "enroll", "enrolment": "enrollment", "instalment": "installment", "jewellery": "jewelry",
    "counsellor": "counselor", "skilful": "skillful", "marvellous": "marvelous",
    "licence": "license", "defence": "defense", "offence": "offense", "pretence": "pretense",
    "practise": "practice", "grey": "gray", "cosy": "cozy", "aluminium": "aluminum", "aeroplane": "airplane",
    "whilst": "while", "amongst": "among", "analyse": "analyze", "analysing": "analyzing",
    "paralyse": "paralyze", "plough": "plow", "sceptical": "skeptical", "ageing": "aging",
    "judgement": "judgment", "acknowledgement": "acknowledgment", "learnt": "learned", "pyjamas": "pajamas",
    "programme": "program", "okay": "ok", "mum": "mom", "manoeuvre": "maneuver", "diarrhoea": "diarrhea",
    "anaemia": "anemia", "oestrogen": "estrogen", "paediatric": "pediatric", "orthopaedic": "orthopedic",
}  # fmt: skip
JOINED: Final = {
    ("e", "mail"): "email",
    ("e", "mails"): "emails",
    ("wi", "fi"): "wifi",
    ("on", "line"): "online",
}

# Chinese: what stands before a request, and after it.
ZH_BEFORE: Final = (
    "请问一下", "请问下", "请问", "麻烦问一下", "我想问一下", "我想问下", "我想请问", "想问一下", "想问下",
    "我想问", "想请问", "打扰一下", "劳驾", "麻烦你", "麻烦您", "麻烦",
    "能不能帮我", "能否帮我", "可以帮我", "可不可以帮我", "能帮我", "请帮我", "帮我", "请你", "请您",
    "请告诉我", "能告诉我", "告诉我", "请",
)  # fmt: skip
# A greeting, or thanks in advance: a pause or the beginning of a question must follow.
ZH_GREETINGS: Final = ("你好", "大家好", "谢谢", "不好意思")
ZH_OPENERS: Final = frozenset("请怎如能可我麻什为哪几有是想帮谁多在")
# Words that begin with a courtesy's character and are none: to ask for leave, to treat, to request.
ZH_NO_COURTESY: Final = {"请": frozenset("假客求辞教愿示柬战命罪安"), "帮我": frozenset("的")}
ZH_AFTER: Final = (
    "非常感谢",
    "多谢了",
    "多谢",
    "谢谢你",
    "谢谢您",
    "谢谢了",
    "谢谢",
    "感谢",
    "拜托了",
    "拜托",
)
ZH_PARTICLES: Final = frozenset("呢啊呀哦哈嘛啦喔")
ZH_NEGATIONS: Final = frozenset("不没别非无勿莫未")
ZH_ABOUT_LANGUAGE: Final = (
    "翻译",
    "意思",
    "怎么说",
    "怎么写",
    "怎么读",
    "英语",
    "英文",
    "成语",
    "造句",
    "回复",
)
ZH_SPELLINGS: Final = {
    "帐号": "账号",
    "帐户": "账户",
    "帐单": "账单",
    "其它": "其他",
    "怎样": "如何",
    "您": "你",
    "妳": "你",
}

_TRADITIONAL: Final = (
    "萬與專業叢東絲兩嚴喪個豐臨為麗舉義烏樂喬習鄉書買亂爭於虧雲亞產畝親億僅從侖倉儀們價眾優會傘偉傳傷倫偽體餘傭僉"
    "俠侶僥偵側僑債傾償儲兒兌黨蘭關興養獸內岡冊寫軍農馮衝決況凍淨準涼減湊凜幾鳳憑凱擊鑿劃劉則剛創刪別劑劍劇勸辦務動"
    "勵勁勞勢勳勝區醫華協單賣盧衛卻廠廳歷厲壓厭參雙發變敘葉號嘆嚇嗎啟吳員聽嗚響噴團園圍國圖圓聖場壞塊堅壇壩墳墜"
    "聲殼處備復夠頭誇夾奪奮獎婦媽嬌學寧實寵審憲宮寬賓對尋導壽將爾塵嘗屍層屆屬歲島嶺幣帥師帳帶幫庫應廟廣慶廢開異棄張"
    "彌彎彈強歸當錄徹徑後憶憂懷態憐總戀恆惡悅懸驚懼慘慣憤願戲戰戶撲執擴掃揚擾撫拋搶護報擔擬擁攔擇擺搖損換據擠揮撈"
    "撿攜攝敵數斷無舊時曠曉暫術機殺雜權條來楊極構槍標棧棟樹樣檔橋檢樓橫歡殘毀畢氣漢湯溝沒潔灑淚澤濟瀏測渾濃滬滅潤"
    "澀漲淵漁滲溫遊灣濕滿濾燈靈災爐點煉爛煩燒熱愛爺牽狀猶獨獄獲環現瑪電畫暢療瘋癢盜盤監蓋瞞礎確礙禮禍離種積稱穩"
    "穀窮竊競筆簡簽籌籃糧緊糾紅約級紀純紙紛紗線練組細終絆紹經結給絡絕統繼績緒續維綠網編緣縮繁緩縣縫總繳罰羅羨職聯聰"
    "肅腸膚腎脫臉臘膠臟節蘇範莖藥莊獲薦蕩蔥虛蟲雖螞蠻補襯裝裡製複覽覺觀規視覽計訂認討讓訊記講許論設訪證評詐識診詞譯試"
    "詩話詢該詳語誤說請諸諾讀課誰調談謀謂謊謎謝譜譽貝負財責賢敗貨質販貪貧購貫貴貸貿費資賬賭賺賞賠賴賽贈贏趙趕趨躍軌"
    "轉輪軟輕載較輔輛輩輯輸辭邊遼達遷過邁運還這進遠違連遲適選遺郵鄰鄭釋針釘鈔鋼鑰錢鐵鈴鉛銅銀鋒鎖錯錦鍵鍋鏡長門閃"
    "閉問間悶聞閱闊隊陽陰陣階際陸陳險隨隱難霧靜頁頂項順須頑顧頓頒預領頗頻題顏額風飛飯飲飾飽餅館餓馬駐駕駛驗騎騙驕"
    "魚鮮鳥鳴鴨鵝鷹麥黃齊齒齡龍龜碼繫係臺瞭銷註鏈鐘貓雞豬隻裏週曆擋賦顯鬧髮麵鬆籤礦滯滾漸歐櫃欄榮掛慮噸墊孫嬰彙匯銳遞邏麼"
)
_SIMPLIFIED: Final = (
    "万与专业丛东丝两严丧个丰临为丽举义乌乐乔习乡书买乱争于亏云亚产亩亲亿仅从仑仓仪们价众优会伞伟传伤伦伪体余佣佥"
    "侠侣侥侦侧侨债倾偿储儿兑党兰关兴养兽内冈册写军农冯冲决况冻净准凉减凑凛几凤凭凯击凿划刘则刚创删别剂剑剧劝办务动"
    "励劲劳势勋胜区医华协单卖卢卫却厂厅历厉压厌参双发变叙叶号叹吓吗启吴员听呜响喷团园围国图圆圣场坏块坚坛坝坟坠"
    "声壳处备复够头夸夹夺奋奖妇妈娇学宁实宠审宪宫宽宾对寻导寿将尔尘尝尸层届属岁岛岭币帅师帐带帮库应庙广庆废开异弃张"
    "弥弯弹强归当录彻径后忆忧怀态怜总恋恒恶悦悬惊惧惨惯愤愿戏战户扑执扩扫扬扰抚抛抢护报担拟拥拦择摆摇损换据挤挥捞"
    "捡携摄敌数断无旧时旷晓暂术机杀杂权条来杨极构枪标栈栋树样档桥检楼横欢残毁毕气汉汤沟没洁洒泪泽济浏测浑浓沪灭润"
    "涩涨渊渔渗温游湾湿满滤灯灵灾炉点炼烂烦烧热爱爷牵状犹独狱获环现玛电画畅疗疯痒盗盘监盖瞒础确碍礼祸离种积称稳"
    "谷穷窃竞笔简签筹篮粮紧纠红约级纪纯纸纷纱线练组细终绊绍经结给络绝统继绩绪续维绿网编缘缩繁缓县缝总缴罚罗羡职联聪"
    "肃肠肤肾脱脸腊胶脏节苏范茎药庄获荐荡葱虚虫虽蚂蛮补衬装里制复览觉观规视览计订认讨让讯记讲许论设访证评诈识诊词译试"
    "诗话询该详语误说请诸诺读课谁调谈谋谓谎谜谢谱誉贝负财责贤败货质贩贪贫购贯贵贷贸费资账赌赚赏赔赖赛赠赢赵赶趋跃轨"
    "转轮软轻载较辅辆辈辑输辞边辽达迁过迈运还这进远违连迟适选遗邮邻郑释针钉钞钢钥钱铁铃铅铜银锋锁错锦键锅镜长门闪"
    "闭问间闷闻阅阔队阳阴阵阶际陆陈险随隐难雾静页顶项顺须顽顾顿颁预领颇频题颜额风飞饭饮饰饱饼馆饿马驻驾驶验骑骗骄"
    "鱼鲜鸟鸣鸭鹅鹰麦黄齐齿龄龙龟码系系台了销注链钟猫鸡猪只里周历挡赋显闹发面松签矿滞滚渐欧柜栏荣挂虑吨垫孙婴汇汇锐递逻么"
)
TO_SIMPLIFIED: Final = str.maketrans(_TRADITIONAL, _SIMPLIFIED)
