"""Words that tell nothing about what is asked for, as the analyzer writes them: without case and apostrophes.

They also tell which language a text is in, so each list has the function words of its language and nothing else: what
collections of such lists have beside them (numbers, old spellings, words of other languages) would do harm here.
"""

# ruff: noqa: RUF001 - some letters look like others

from __future__ import annotations

# Snowball's list without the words that are also something else once their apostrophe is gone (hell, id, shed, …).
_ENGLISH = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself
it its itself they them their theirs themselves
what which who whom whose this that these those when where why how
am is are was were be been being have has had having do does did doing
will would shall should can could may might must ought cannot
im ive youre youve weve theyre theyve
isnt arent wasnt werent hasnt havent hadnt doesnt dont didnt wont wouldnt shant shouldnt cant couldnt mustnt
a an the and but if or because as until while of at by for with about against between into through during before
after above below to from up upon down in out on off over under again further then once here there
all any both each few more most other some such no nor not only own same so than too very also
s t
"""

_GERMAN = """
ich mich mir mein meine meinen meinem meiner meines wir uns unser unsere unseren unserem unserer unseres
du dich dir dein deine deinen deinem deiner deines ihr euch euer eure euren eurem eurer eures
er ihn ihm sein seine seinen seinem seiner seines sie ihnen ihre ihren ihrem ihrer ihres es sich man
der die das den dem des dass ein eine einen einem einer eines kein keine keinen keinem keiner keines
dieser diese dieses diesen diesem jener jene jenes jenen jenem jeder jede jedes jeden jedem
solcher solche solches solchen solchem mancher manche manches manchen manchem alle alles allen allem aller
derselbe dieselbe dasselbe denselben demselben desselben derjenige diejenige dasjenige
welcher welche welches welchen welchem wer wen wem wessen was wo wohin woher wann warum weshalb wieso wie
bin bist ist sind seid war warst waren wart gewesen habe hast hat haben habt hatte hattest hatten hattet gehabt
werde wirst wird werden werdet wurde wurden worden würde würden geworden
kann kannst können könnt konnte konnten könnte könnten muss musst müssen müsst musste mussten müsste müssten
soll sollst sollen sollt sollte sollten will willst wollen wollt wollte wollten darf darfst dürfen dürft durfte
durften dürfte dürften mag magst mögen mögt mochte mochten möchte möchten
und oder aber denn doch sondern weil wenn als ob falls damit sowie sowohl weder noch bevor nachdem während indem
obwohl dabei daher darum dafür dagegen dann da dort hier hin her nun jetzt so also auch nur schon sehr nicht nichts
etwas an am auf aus bei beim bis durch für gegen hinter hinterm im in ins mit nach neben ohne seit über um unter unterm
vom von vor vorm wegen zu zum zur zwischen ab je ja nein viel viele vielen wieder einmal mal sonst selbst
"""

_FRENCH = """
je me moi mon ma mes nous notre nos tu te toi ton ta tes vous votre vos il elle ils elles lui leur leurs eux on soi
se sa ses le la les un une des du de au aux ce cet cette ces celui celle ceux celles ceci cela ça y en
qui que quoi quel quelle quels quelles dont où quand comment pourquoi lequel laquelle lesquels lesquelles auquel duquel
suis es est sommes êtes sont étais était étions étiez étaient été étant serai seras sera serons serez seront serait
seraient soit soient fut furent fût ai as a avons avez ont avais avait avions aviez avaient eu ayant aurai auras aura
aurons aurez auront aurait auraient ait aient eut eurent peut peuvent pouvait pourrait doit doivent devait devrait
fait faire et ou mais donc or ni car si comme lorsque puisque tandis afin ainsi alors aussi
à dans par pour sur sous avec sans entre vers chez contre depuis pendant avant après jusque jusqu selon dès
ne pas plus moins très trop peu non oui ici là même mêmes autre autres tout toute tous toutes chaque quelque quelques
l d qu j n s c m t lorsqu puisqu
"""

_SPANISH = """
yo me mí mi mis nosotros nosotras nos nuestro nuestra nuestros nuestras tú te ti tu tus vosotros vosotras os vuestro
vuestra vuestros vuestras usted ustedes él ella ello ellos ellas le les lo la los las se sí su sus suyo suya suyos suyas
el un una unos unas al del este esta esto estos estas ese esa eso esos esas aquel aquella aquello aquellos aquellas
que qué quien quién quienes quiénes cual cuál cuales cuáles cuyo cuya cuyos cuyas donde dónde cuando cuándo como cómo
cuanto cuánto cuánta cuántos cuántas
soy eres es somos sois son era eras éramos eran fui fue fuimos fueron sido siendo será serán sería serían sea sean
fuera fueran estoy estás está estamos están estaba estaban estado estuvo he has ha hemos han había habían habido haya
hayan hay hubo habrá habría tengo tiene tienen tenía tener puede pueden podía podría debe deben debería
y e o u pero sino ni si porque pues aunque mientras así también tampoco entonces
a ante bajo con contra de desde durante en entre hacia hasta para por según sin sobre tras
no muy más menos ya aún todavía sólo solo tan tanto todo toda todos todas otro otra otros otras mismo misma mismos
mismas cada algún alguna algunos algunas algo alguien ningún ninguna nada nadie poco mucho muchos ambos
"""

_ITALIAN = """
io me mi mio mia miei mie noi ci nostro nostra nostri nostre tu te ti tuo tua tuoi tue voi vi vostro vostra vostri
vostre lui lei loro egli ella esso essa essi esse li ne si sé suo sua suoi sue
il lo la i gli le un uno una questo questa questi queste quello quella quelli quelle quel quei quegli ciò
che chi cui quale quali quanto quanta quanti quante dove quando come perché
sono sei è siamo siete era eri erano eravamo fu furono stato stata stati state essere sarà saranno sarebbe sarebbero
sia siano fosse fossero ho hai ha abbiamo avete hanno aveva avevano avuto avere avrà avrebbe abbia abbiano ebbe può
possono poteva potrebbe deve devono doveva dovrebbe viene vengono
e ed o od ma però anche se né oppure mentre poiché così allora quindi dunque cioè
a ad al allo alla ai agli alle con col coi da dal dallo dalla dai dagli dalle di del dello della dei degli delle in nel
nello nella nei negli nelle per su sul sullo sulla sui sugli sulle tra fra contro durante senza sotto verso presso
non più meno molto già ancora solo sempre ogni tutto tutta tutti tutte altro altra altri altre stesso stessa stessi
stesse alcuni alcune qualche nessun nessuno nessuna niente nulla
l un c d dell all dall nell sull quell quest com cos
"""

_PORTUGUESE = """
eu me mim meu minha meus minhas nós nos nosso nossa nossos nossas tu te ti teu tua teus tuas você vocês vós vos vosso
vossa ele ela eles elas lhe lhes se si seu sua seus suas dele dela deles delas
o a os as um uma uns umas este esta isto estes estas esse essa isso esses essas aquele aquela aquilo aqueles aquelas
que quê quem qual quais cujo cuja cujos cujas onde quando como quanto quanta quantos quantas porquê
sou és é somos são era eras éramos eram fui foi fomos foram sido sendo ser será serão seria seriam seja sejam fosse
fossem for forem estou está estamos estão estava estavam esteve estar esteja tenho tem temos têm tinha tinham teve
tiveram ter terá teria tenha tenham há havia haver houve pode podem podia poderia deve devem devia deveria vai vão
e ou mas porém nem porque pois embora enquanto assim também então portanto logo
ao aos à às de do da dos das dum duma em no na nos nas num numa por pelo pela pelos pelas para pra com sem sob sobre
até desde entre contra durante após perante segundo neste nesta nesse nessa deste desta desse dessa disto disso
não mais menos muito muita muitos muitas já ainda só apenas sempre cada todo toda todos todas outro outra outros outras
mesmo mesma mesmos mesmas algum alguma alguns algumas algo alguém nenhum nenhuma nada ninguém
"""

_DUTCH = """
ik mij me mijn wij we ons onze jij je jou jouw jullie u uw hij hem hij zij ze haar hun hen het zich men
de een der den des dit dat deze die dezelfde hetzelfde zulke zulk elk elke ieder iedere iedereen iemand niemand
wie wat welk welke waar wanneer waarom hoe wiens waarin waarmee waarvan waarop waardoor
ben bent is zijn was waren geweest heb hebt heeft hebben had hadden gehad word wordt worden werd werden geworden
kan kunt kunnen kon konden zal zult zullen zou zouden moet moeten moest moesten mag mogen mocht mochten wil wilt willen
wilde wilden doe doet doen deed deden gedaan
en of maar want dus noch als dan omdat doordat zodat hoewel terwijl toen indien voordat nadat
aan achter af bij boven binnen buiten door in met na naar naast om onder op over per sinds te ten ter tegen tegenover
tijdens tot tussen uit van vanaf via volgens voor zonder
er hier daar nu niet geen niets iets ook al alle alles nog reeds zo zeer wel weer meer veel vele andere ander anders
zelf daarna daarbij daarom daarmee daarvan eens toch slechts alleen altijd
"""

_RUSSIAN = """
я меня мне мной мы нас нам нами ты тебя тебе тобой вы вас вам вами он его него ему нему им ним нём нем она её ее неё нее
ей ней ею оно они их них ими ними себя себе собой мой моя моё мое мои моего моей моих моим наш наша наше наши нашего
нашей наших твой твоя твоё твои ваш ваша ваше ваши вашего вашей ваших свой своя своё свое свои своего своей своих своим
своими этот эта это эти этого этой этому этим этих этими этом тот та то те того той тому тем тех теми том
такой такая такое такие такого таких сам сама само сами весь вся всё все всего всей всех всем всеми всему
кто кого кому кем ком что чего чему чем чём который которая которое которые которого которой которому которым которых
которыми котором чей чья чьё чьи где куда откуда когда почему зачем как какой какая какое какие какого каких сколько
быть был была было были буду будет будем будут бы есть суть может могут можно мог могла могли нужно надо должен должна
должно должны нельзя
и а но или либо да же ли ни если чтобы хотя потому поэтому так также тоже пока ведь
в во на с со к ко у о об обо от ото до за из изо по под подо над надо при про для без безо через между перед передо
после около вокруг кроме
не нет уже ещё еще только очень более менее лишь даже вот тут там здесь теперь тогда сейчас
"""

BY_LANGUAGE = {
    "english": frozenset(_ENGLISH.split()),
    "german": frozenset(_GERMAN.split()),
    "french": frozenset(_FRENCH.split()),
    "spanish": frozenset(_SPANISH.split()),
    "italian": frozenset(_ITALIAN.split()),
    "portuguese": frozenset(_PORTUGUESE.split()),
    "dutch": frozenset(_DUTCH.split()),
    "russian": frozenset(_RUSSIAN.split()),
}
"""By the name of the Snowball algorithm."""
